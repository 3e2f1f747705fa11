# SPDX-License-Identifier: Apache-2.0
"""Most of a short run's time goes into compiling: the runs share what they do.

A process that is killed while it writes leaves a file that JAX cannot read;
the next one then says so and compiles again.
"""

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
  """Processes that tests start take compiled programs from one folder."""
  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp("compiled")
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    yield
