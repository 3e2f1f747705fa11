# SPDX-License-Identifier: Apache-2.0
"""Any number of examples through functions compiled for one batch size."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def fixed_batches(
  items: Sequence[Item], size: int
) -> Iterator[tuple[list[Item], int]]:
  """Yields (`size` items, how many of them count), in order.

  The last batch is filled up with its last item.
  """
  for start in range(0, len(items), size):
    batch = list(items[start : start + size])
    count = len(batch)
    yield batch + batch[-1:] * (size - count), count
