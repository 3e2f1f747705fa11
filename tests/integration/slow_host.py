# SPDX-License-Identifier: Apache-2.0
"""Runs `realm` as a host that opens versions slowly, and says what it searches.

python -m tests.integration.slow_host <seconds> train --workdir=… …
"""

import sys
import time

from realm_jax import cli
from realm_jax.index import store
from realm_jax.train.versions import Versions

_seconds = float(sys.argv.pop(1))
_open_version, _opened = store.open_version, Versions.opened


def _open_slowly(*args):
  time.sleep(_seconds)
  return _open_version(*args)


def _say(versions, name):
  """Once for each batch that is prepared."""
  version = _opened(versions, name)
  print(f"searches {name}", flush=True)
  return version


if __name__ == "__main__":
  store.open_version = _open_slowly
  Versions.opened = _say
  cli.main()
