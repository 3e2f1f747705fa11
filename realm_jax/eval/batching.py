# SPDX-License-Identifier: Apache-2.0
"""Any number of rows through a function compiled for one batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def run_in_batches(
  fn: Callable[..., Any], num_rows: int, batch_size: int, *trees: Any
) -> Any:
  """Returns `fn(*trees)`, computed `batch_size` rows at a time.

  The last batch is filled up by repeating the last row, so a jitted `fn`
  sees one shape; what it makes of the filling is dropped.

  Args:
    fn: takes and returns trees of arrays [batch_size * c, ...], c being an
      array's own rows per row of the batch.
    num_rows: rows that `trees` hold, n >= 1.
    batch_size: rows at a time.
    trees: arrays [n * c, ...] on the host.

  Returns:
    The tree of NumPy arrays [n * c, ...] that `fn` makes.
  """
  outputs = []
  for start in range(0, num_rows, batch_size):
    rows = np.minimum(np.arange(start, start + batch_size), num_rows - 1)
    batch = [_take(tree, rows, num_rows) for tree in trees]
    kept = min(batch_size, num_rows - start)
    done = jax.device_get(fn(*batch))
    outputs.append(_take(done, np.arange(kept), batch_size))
  return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _take(tree: Any, rows: np.ndarray, num_rows: int) -> Any:
  """Picks rows [n] of arrays [n * c, ...], keeping each row's c together."""

  def pick(leaf: np.ndarray) -> np.ndarray:
    each = leaf.reshape(num_rows, -1, *leaf.shape[1:])
    return each[rows].reshape(-1, *leaf.shape[1:])

  return jax.tree.map(pick, tree)
