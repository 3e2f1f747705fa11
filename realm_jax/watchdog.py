# SPDX-License-Identifier: Apache-2.0
"""Ends a process that waits for others for too long, and says for which.

A collective has no time-out. Where one takes long, each process notes in JAX's
key-value store which of its waits that is; all of them wait equally often, so
the processes that are missing are those that note an earlier one, or none.
"""

from collections.abc import Callable, Iterator
import concurrent.futures
import contextlib
import functools
import os
import sys
import threading
import time
from typing import Any, TypeVar

import jax

from realm_jax.cluster import Group

T = TypeVar("T")
_NOTES = "realm/waits"
_NOTE_SECONDS = 5.0  # Before a wait is noted, and for process 0 to answer.


class Watchdog:
  """Watches the waits of one process, from a thread of its own."""

  def __init__(self, client: Any, group: Group, wait_seconds: float) -> None:
    """Watches nothing yet; use it as a context manager.

    Args:
      client: of JAX's distributed runtime.
      group: with its hosts.
      wait_seconds: what a wait may take.
    """
    self._client, self._group = client, group
    self._wait_seconds = wait_seconds
    self._note_seconds = min(_NOTE_SECONDS, wait_seconds / 4)
    self._wait: tuple[int, float] | None = None  # Its number, when it began.
    self._number = self._noted = 0
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="watchdog", daemon=True
    )

  def __enter__(self) -> "Watchdog":
    self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._closing.set()
    self._thread.join()

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """All processes wait for each other within; all as often."""
    self._number += 1
    self._wait = (self._number, time.monotonic())
    try:
      yield
    finally:
      self._wait = None

  def _run(self) -> None:
    while not self._closing.wait(self._note_seconds / 4):
      if (wait := self._wait) is None:
        continue
      number, began = wait
      waited = time.monotonic() - began
      if waited > self._note_seconds and self._noted < number:
        self._noted = number
        # Whoever serves the store may be the one that is missing.
        with contextlib.suppress(jax.errors.JaxRuntimeError, TimeoutError):
          self._ask(functools.partial(self._note, number))
      if waited > self._wait_seconds:
        print(f"realm: {self._problem(number)}", file=sys.stderr, flush=True)
        os._exit(1)

  def _note(self, number: int) -> None:
    self._client.key_value_set(
      f"{_NOTES}/{self._group.process_id}", str(number), allow_overwrite=True
    )

  def _ask(self, request: Callable[[], T]) -> T:
    """Returns what the store says; TimeoutError if it cannot be reached.

    JAX's requests wait for ever. One that does is left to a thread of its own.
    """
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()

    def ask() -> None:
      try:
        answer.set_result(request())
      except Exception as error:
        answer.set_exception(error)

    threading.Thread(target=ask, name="watchdog-asks", daemon=True).start()
    try:
      return answer.result(self._note_seconds)
    except TimeoutError:
      raise TimeoutError(f"no answer within {self._note_seconds:g} s") from None

  def _problem(self, number: int) -> str:
    group = self._group
    within = f"within {self._wait_seconds:.0f} s"
    try:
      notes = dict(self._ask(lambda: self._client.key_value_dir_get(_NOTES)))
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
      return (
        f"Some processes did not come to where this one waits {within}, and "
        f"process {group.name(0)} does not say which ({error}). Look at its "
        "log, and whether this host can reach it."
      )
    missing = [
      group.name(process)
      for process in range(group.num_processes)
      if int(notes.get(f"{_NOTES}/{process}", 0)) < number
    ]
    if not missing:
      return (
        f"All processes wait for each other, and nothing came {within}: look "
        "at the network between them, and at their devices."
      )
    return (
      f"Processes {', '.join(missing)} of {group.num_processes} did not come "
      f"to where the others wait {within}. Look at their logs, or give "
      "--peer_wait_seconds."
    )
