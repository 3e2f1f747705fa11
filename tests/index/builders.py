# SPDX-License-Identifier: Apache-2.0
"""Builders at work: on a thread, or as a process that stands still."""

from concurrent import futures
import contextlib
import subprocess
import sys
import time

import pytest

from realm_jax import checkpoints
from realm_jax.index.builder import build_index


@contextlib.contextmanager
def watching(workdir):
  """A builder with --watch on a thread; leaving waits for it to end."""
  with futures.ThreadPoolExecutor(1) as pool:
    builder = pool.submit(build_index, workdir, watch=True, poll_seconds=0.02)
    try:
      yield builder
    except BaseException:
      # The test failed. The builder would wait for a run that never ends.
      workdir.mkdir(exist_ok=True)
      (workdir / checkpoints.TRAINING_DONE).touch()
      raise


def wait_for(condition, builder):
  deadline = time.monotonic() + 600
  while not condition():
    if builder.done():
      pytest.fail(f"The builder ended: {builder.exception()!r}")
    assert time.monotonic() < deadline
    time.sleep(0.02)


@contextlib.contextmanager
def stalled(workdir, moment):
  """A builder's process that stands still at a moment; leaving kills it."""
  command = [
    *(sys.executable, "-m", "tests.faulty", moment),
    *("build-index", f"--workdir={workdir}", "--watch"),
  ]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout.readline() == "stopped\n"
      yield process
    finally:
      process.kill()
