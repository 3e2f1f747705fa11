# SPDX-License-Identifier: Apache-2.0
"""The processes that train one run together, each with devices of its own.

A process alone is a group of one: nothing here costs it anything. `gather` is a
collective: every process must call it as often as the others between the same
two steps, on the thread that dispatches the steps.
"""

import atexit
from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

_MESSAGE_BYTES = 128


@contextlib.contextmanager
def joined(
  coordinator: str, num_processes: int, process_id: int
) -> Iterator[None]:
  """Makes this process one of a group; call it before any computation.

  A process that leaves with an exception ends at once, without the others:
  they may wait for it in a collective, and do not come to say goodbye.

  Args:
    coordinator: "host:port" of process 0; "" for a process alone.
    num_processes: of the group.
    process_id: this one's, from 0.

  Raises:
    ValueError: the arguments do not fit together.
  """
  if not coordinator:
    if (num_processes, process_id) != (1, 0):
      raise ValueError(
        f"num_processes={num_processes} and process_id={process_id} were "
        "given without a coordinator. Give all three, or none to train in "
        "one process."
      )
    yield
    return
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"process_id ({process_id}) must be in 0..{num_processes - 1}, as "
      f"num_processes is {num_processes}."
    )
  # Its sync point is some later step, which a run that waits never reaches:
  # `train.stop` catches SIGTERM instead.
  jax.config.update("jax_enable_preemption_service", False)
  jax.distributed.initialize(coordinator, num_processes, process_id)
  try:
    yield
  except BaseException:
    atexit.register(_leave)
    raise


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
  return [
    json.loads(row.tobytes()) for row in multihost_utils.process_allgather(mine)
  ]


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
