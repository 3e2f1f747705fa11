# SPDX-License-Identifier: Apache-2.0
import ctypes
import subprocess
import sys

import pytest

from realm_jax import allocator

# Faults of the last of five rounds of touching 128 MiB and freeing them, in
# a thread of its own, as XLA's are.
_ROUNDS = """
import resource, sys, threading
import numpy as np
from realm_jax import allocator
kept = allocator.keep_freed_memory() if sys.argv[1] == "keep" else None
if sys.argv[1] == "release":
  kept = allocator.keep_freed_memory()
faults = []
def work():
  for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**24).fill(1.0)
    if sys.argv[1] == "release":
      allocator.release_freed_memory()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(kept, faults[-1])
"""


def _rounds(mode, platforms):
  done = subprocess.run(
    [sys.executable, "-c", _ROUNDS, mode],
    env={"JAX_PLATFORMS": platforms},
    capture_output=True,
    text=True,
    check=True,
  )
  kept, faults = done.stdout.split()
  return kept, int(faults)


@pytest.mark.skipif(
  not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc only"
)
def test_freed_memory_is_not_paid_for_again():
  without, kept = _rounds("plain", "cpu"), _rounds("keep", "cpu")

  assert kept[0] == "True"
  # With huge pages there are few faults either way, but never more.
  assert kept[1] <= min(100, without[1])


def test_what_is_free_can_be_handed_back(tmp_path):
  held, released = _rounds("keep", "cpu"), _rounds("release", "cpu")
  assert released[1] > held[1]


def test_an_accelerators_host_is_left_alone():
  assert _rounds("keep", "cuda,cpu")[0] == "False"


@pytest.mark.parametrize(
  "installed, on_cpu", [((), True), (("jax_plugins",), False)]
)
def test_without_a_choice_the_plugins_tell(installed, on_cpu, monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(
    allocator.importlib.util,
    "find_spec",
    lambda name: object() if name in installed else None,
  )
  monkeypatch.setattr(
    allocator.ctypes, "CDLL", lambda _: type("C", (), {"mallopt": _accepts})
  )
  assert allocator.keep_freed_memory() is on_cpu


def _accepts(*_):
  return 1
