# SPDX-License-Identifier: Apache-2.0
"""Asking a trainer to stop: SIGTERM saves a checkpoint, then exits."""

import signal
import types

import jax
from jax.experimental import multihost_utils

# sysexits.h's EX_TEMPFAIL: not an error, start the same command again.
STOPPED_EXIT_CODE = 75


class StopRequest:
  """True at the step where all hosts stop together after SIGTERM.

  On several hosts `jax.distributed` catches the signal and agrees on a step;
  on one host the signal is caught here.
  """

  def __init__(self) -> None:
    self._asked = False
    self._many_hosts = jax.process_count() > 1

  def install(self) -> None:
    """Catches SIGTERM; only the main thread may call this."""
    if not self._many_hosts:
      signal.signal(signal.SIGTERM, self._on_signal)

  def _on_signal(self, signum: int, frame: types.FrameType | None) -> None:
    del signum, frame
    self._asked = True

  def asked_here(self) -> bool:
    """Whether to wait for nothing more; False where hosts must agree first."""
    return self._asked

  def at(self, step: int) -> bool:
    """Whether to save and stop after this step; the same on every host."""
    if self._many_hosts:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
