# SPDX-License-Identifier: Apache-2.0
"""Runs the project's commands as a user would, and measures them."""

from collections.abc import Callable, Sequence
import contextlib
import subprocess
import sys
import time

import psutil

SAMPLE_SECONDS = 0.5
# Linux counts a large process' pages one by one, and holds its allocations up
# meanwhile: so long, for each second of counting, it is left alone.
_REST = 50


class Processes:
  """Runs commands, one or several at a time, and notes their peak memory.

  Attributes:
    peak_bytes: the most memory that all processes running together had, with
      their children: proportional set sizes, in which a page that n processes
      share counts 1/n for each.
  """

  def __init__(
    self,
    *,
    pass_fds: Sequence[int] = (),
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Starts nothing yet.

    Args:
      pass_fds: open files that the commands hold, too.
      tick: called about twice a second while commands run.
    """
    self.peak_bytes = 0
    self._pass_fds, self._tick = pass_fds, tick

  def realm(self, command: str, **flags: object) -> None:
    """Runs `realm <command> --flag=value …`; see `together`."""
    self.together([realm(command, **flags)])

  def together(self, commands: Sequence[Sequence[str]]) -> None:
    """Runs commands side by side until all are done.

    Raises:
      SystemExit: one failed; the others are stopped, and the exit code is
        its own.
    """
    running = [
      subprocess.Popen(command, pass_fds=self._pass_fds) for command in commands
    ]
    failed, next_sample = None, 0.0
    try:
      while failed is None and any(one.poll() is None for one in running):
        if (began := time.monotonic()) >= next_sample:
          self._sample(running)
          next_sample = began + _REST * (time.monotonic() - began)
        self._tick()
        time.sleep(SAMPLE_SECONDS)
        failed = _first_failed(running)
      failed = failed or _first_failed(running)
    finally:
      for process in running:
        if process.poll() is None:
          process.terminate()  # A trainer saves, and goes on from there later.
        process.wait()
    if failed:
      line = " ".join(map(str, failed.args[1:]))  # type: ignore[index]
      print(f"Failed ({failed.returncode}): {line}", file=sys.stderr)
      raise SystemExit(failed.returncode)

  def _sample(self, running: Sequence[subprocess.Popen]) -> None:
    total = 0
    for process in running:
      with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for one in [root, *root.children(recursive=True)]:
          with contextlib.suppress(psutil.NoSuchProcess):
            total += _memory_bytes(one)
    self.peak_bytes = max(self.peak_bytes, total)


def _first_failed(
  running: Sequence[subprocess.Popen],
) -> subprocess.Popen | None:
  return next((process for process in running if process.poll()), None)


def realm(command: str, **flags: object) -> list[str]:
  """Returns the command line of `realm <command> --flag=value …`."""
  return [sys.executable, "-m", "realm_jax.cli", command, *_written(flags)]


def train(**flags: object) -> list[str]:
  """Returns the command line that trains with an index builder beside it."""
  return [sys.executable, "-m", "launch.local", *_written(flags)]


def _written(flags: dict[str, object]) -> list[str]:
  return [f"--{name}={value}" for name, value in flags.items()]


def _memory_bytes(process: psutil.Process) -> int:
  try:
    return process.memory_full_info().pss
  except (AttributeError, psutil.AccessDenied):  # Not on this system.
    return process.memory_info().rss
