# SPDX-License-Identifier: Apache-2.0
"""Published versions that are no longer, or never were, what was published.

A reader that finds one does not use it, and says so beside it:

    index/<version>.damaged.json

The next builder looks for itself. If the reader is right it takes the manifest
away, which makes the version a draft again, and builds it anew from its
checkpoint, though newer versions may be there.
"""

from collections.abc import Iterator
import contextlib
import json

from etils import epath

from realm_jax import files
from realm_jax.checksums import check_files
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.mirror import VERSIONS

REPORT = ".damaged.json"


class VersionDamaged(ValueError):
  """A published version is not what its manifest and its name say."""


@contextlib.contextmanager
def reporting(directory: epath.PathLike) -> Iterator[None]:
  """Reports the version in `directory` where reading it raises ValueError.

  Raises:
    VersionDamaged: in place of that.
  """
  try:
    yield
  except ValueError as error:
    files.write_whole(_report(directory), json.dumps({"reason": str(error)}))
    raise VersionDamaged(str(error)) from error


def is_reported(directory: epath.PathLike) -> bool:
  """Whether a reader found the version damaged, and no builder has acted."""
  return _report(directory).exists()


def clear(directory: epath.PathLike) -> None:
  """Takes a report back: there is nothing to do, or no more."""
  _report(directory).unlink(missing_ok=True)


def check(directory: epath.PathLike) -> None:
  """Reads every file of a published version and compares checksums.

  Raises:
    FileNotFoundError: it is not published.
    ValueError: it is damaged.
  """
  manifest = Manifest.read(directory)
  check_files(directory, manifest.files, checksums=True, remedy=VERSIONS.remedy)


def withdraw(directory: epath.PathLike) -> str:
  """Makes a published version a draft again if it is damaged.

  Its files stay until the draft is published, for those who have them open.

  Returns:
    What is wrong with it; "" where it is sound or not published.
  """
  path = epath.Path(directory) / MANIFEST
  try:
    found = path.read_bytes()
    check(directory)
  except FileNotFoundError:
    return ""
  except ValueError as error:
    # Another builder may have been faster, and have made it anew.
    if path.exists() and path.read_bytes() == found:
      path.unlink(missing_ok=True)
    return str(error)
  return ""


def _report(directory: epath.PathLike) -> epath.Path:
  directory = epath.Path(directory)
  return directory.parent / f"{directory.name}{REPORT}"
