# SPDX-License-Identifier: Apache-2.0
"""Keeps a CPU from paying for the same memory at every training step.

XLA on a CPU allocates a step's temporary buffers when the step starts and
frees them when it ends. The C library hands so large a block back to the
system, which zeroes it again, page by page, a step later: a sixth of the
step's time.
"""

import ctypes
import importlib.util
import os

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
  """Makes glibc reuse freed blocks of any size; call it before JAX starts.

  Does nothing where there is no glibc, or where JAX will compute on an
  accelerator: the host's memory is then better shared.

  Returns:
    Whether it did.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None or not _will_compute_on_cpu():
    return False
  # One arena, for the others are too small for such blocks; no block mapped
  # by itself, and nothing handed back from the end.
  settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
  return all(mallopt(name, value) == 1 for name, value in settings)


def release_freed_memory() -> None:
  """Hands back, once, what is free now: compiling takes more than a step."""
  malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if malloc_trim is not None:
    malloc_trim(0)


def _will_compute_on_cpu() -> bool:
  # Asking JAX would start its threads, whose arenas could not be undone.
  chosen = os.environ.get("JAX_PLATFORMS")
  if chosen:
    return chosen.split(",")[0] == "cpu"
  plugins = ("jax_plugins", "libtpu")
  return all(importlib.util.find_spec(name) is None for name in plugins)
