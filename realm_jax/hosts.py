# SPDX-License-Identifier: Apache-2.0
"""The processes that train one run together, each with devices of its own.

A process alone is a group of one: nothing here costs it anything. `gather` is a
collective: every process must call it as often as the others between the same
two steps, on the thread that dispatches the steps.
"""

import atexit
from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import sys
from typing import Any, TextIO, cast

from absl import logging as absl_logging
import jax
from jax._src import distributed
from jax.experimental import multihost_utils
import numpy as np

from realm_jax import roll_call, watchdog
from realm_jax.cluster import Group

_log = logging.getLogger(__name__)
_MESSAGE_BYTES = 128

_watchdog: watchdog.Watchdog | None = None  # Of this process, in a group.


@contextlib.contextmanager
def joined(group: Group, wait_seconds: float) -> Iterator[None]:
  """Makes this process one of a group; call it before any computation.

  Each line that a process of several writes to the standard error then begins
  with its number, but on a terminal. A process that leaves with an exception
  ends at once, without the others: they may wait for it in a collective, and do
  not come to say goodbye.

  Args:
    group: of one process or more.
    wait_seconds: what one may wait for the others, here and in `waiting`.

  Raises:
    ValueError: the processes were told different things.
    TimeoutError: some did not come in time; names them.
  """
  if not group.coordinator:
    yield
    return
  _label(group.process_id)
  names = roll_call.call(group, wait_seconds)
  group = dataclasses.replace(group, hosts=names)
  if group.process_id == 0:
    everyone = ", ".join(map(group.name, range(group.num_processes)))
    _log.info("processes: %s", everyone)
  # Its sync point is some later step, which a run that waits never reaches:
  # `train.stop` catches SIGTERM instead.
  jax.config.update("jax_enable_preemption_service", False)
  jax.distributed.initialize(
    group.coordinator,
    group.num_processes,
    group.process_id,
    local_device_ids=group.devices or None,
    cluster_detection_method="deactivate",
  )
  global _watchdog
  client = distributed.global_state.client
  try:
    with watchdog.Watchdog(client, group, wait_seconds) as _watchdog:
      yield
  except BaseException as error:
    atexit.register(_leave)
    if late := _late(error):
      raise TimeoutError(
        f"Processes {', '.join(map(group.name, late))} did not come in time, "
        "or ended: look at their logs."
      ) from error
    raise
  finally:
    _watchdog = None


def waiting() -> contextlib.AbstractContextManager[None]:
  """Within it, all processes wait for each other; all must as often.

  Where that takes too long, this process ends, and says for whom it waited.
  """
  return _watchdog.waiting() if _watchdog else contextlib.nullcontext()


def _label(process_id: int) -> None:
  if not sys.stderr.isatty():
    sys.stderr = cast(TextIO, _Labelled(sys.stderr, f"[{process_id}] "))
    handler = absl_logging.get_absl_handler()
    handler.python_handler.stream = sys.stderr


class _Labelled:
  """A text stream whose lines begin with a label."""

  def __init__(self, stream: TextIO, label: str) -> None:
    self._stream, self._label = stream, label
    self._at_start = True

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes text, which may end within a line."""
    for line in text.splitlines(keepends=True):
      self._stream.write(self._label + line if self._at_start else line)
      self._at_start = line.endswith("\n")
    return len(text)


def _late(error: BaseException) -> list[int]:
  """Returns the processes that JAX's coordination service misses, if any."""
  if not isinstance(error, jax.errors.JaxRuntimeError):
    return []
  found = re.search(r"timed out task names:\s*((\d+\s+)+)", f"{error}\n")
  found = found or re.search(r"Task (\d+) heartbeat timeout", str(error))
  return [int(process) for process in found[1].split()] if found else []


def _leave() -> None:
  sys.stdout.flush()
  os._exit(1)


def is_lead() -> bool:
  """Whether this process writes what one process of a group writes."""
  return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
  """Returns every process' value, in the order of processes.

  Args:
    value: JSON of up to 128 bytes.
  """
  if jax.process_count() == 1:
    return [value]
  text = json.dumps(value).encode()
  if len(text) > _MESSAGE_BYTES:
    raise ValueError(
      f"A message to the other processes has {len(text)} bytes, above "
      f"{_MESSAGE_BYTES}: {text!r}"
    )
  mine = np.frombuffer(text.ljust(_MESSAGE_BYTES), np.uint8)
  with waiting():
    rows = multihost_utils.process_allgather(mine)
  return [json.loads(row.tobytes()) for row in rows]


def check_same(name: str, text: str) -> None:
  """Returns when all processes have come here with the same text.

  Raises:
    ValueError: some came with another than process 0.
  """
  digests = gather(hashlib.sha256(text.encode()).hexdigest())
  others = [i for i, digest in enumerate(digests) if digest != digests[0]]
  if others:
    raise ValueError(
      f"Processes {others} were given another {name} than process 0. Start "
      "all with the same flags, but for --process_id."
    )
