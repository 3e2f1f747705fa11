# SPDX-License-Identifier: Apache-2.0
"""Asking a trainer to stop: SIGTERM saves a checkpoint, then exits."""

import signal
import types

# sysexits.h's EX_TEMPFAIL: not an error, start the same command again.
STOPPED_EXIT_CODE = 75


class StopRequest:
  """Whether this process was asked to stop.

  One process of several is asked as good as all: they tell each other before
  each step, and while they wait for anything.
  """

  def __init__(self) -> None:
    self._asked = False

  def install(self) -> None:
    """Catches SIGTERM; only the main thread may call this."""
    signal.signal(signal.SIGTERM, self._on_signal)

  def _on_signal(self, signum: int, frame: types.FrameType | None) -> None:
    del signum, frame
    self._asked = True

  def asked(self) -> bool:
    """Whether SIGTERM came."""
    return self._asked


class Stopped(Exception):
  """All processes have agreed to stop before the next step."""
