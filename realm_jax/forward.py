# SPDX-License-Identifier: Apache-2.0
"""Many batches through a compiled function, and its results on the host."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
from jax.sharding import Mesh
import numpy as np

Members = TypeVar("Members")
Rows = TypeVar("Rows")

# Of a batch, on each device: little enough for a CPU's cache, and enough that
# an accelerator computes for longer than a batch takes to dispatch.
_TOKENS_PER_CPU = 2**11
TOKENS_PER_ACCELERATOR = 2**15
_IN_FLIGHT = 2  # Batches: one computes, the next is being laid out.


def rows_per_device(length: int, mesh: Mesh) -> int:
  """Returns how many rows of `length` tokens a batch has on each device."""
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  tokens = _TOKENS_PER_CPU if on_cpu else TOKENS_PER_ACCELERATOR
  return max(1, tokens // length)


def computed(
  batches: Iterable[tuple[Members, Rows]],
  compute: Callable[[Rows], jax.Array],
) -> Iterator[tuple[Members, np.ndarray]]:
  """Yields what `compute` makes of each batch, in their order.

  The next batch is laid out while the devices compute one.

  Args:
    batches: whose rows a batch has, and the rows.
    compute: compiled, so that it returns before it is done.
  """
  in_flight: collections.deque[tuple[Members, jax.Array]] = collections.deque()
  for members, rows in batches:
    in_flight.append((members, compute(rows)))
    if len(in_flight) == _IN_FLIGHT:
      first, found = in_flight.popleft()
      yield first, np.asarray(found)
  for members, found in in_flight:
    yield members, np.asarray(found)
