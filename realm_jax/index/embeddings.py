# SPDX-License-Identifier: Apache-2.0
"""The vectors of a corpus: rows in shards, in memory or memory-mapped."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Float32, Int
import numpy as np


class Embeddings:
  """f32[N, D] in consecutive shards; `embeddings[ids]` gathers rows."""

  def __init__(self, shards: Sequence[Float32[np.ndarray, "_ D"]]) -> None:
    """Takes the shards in row order.

    Raises:
      ValueError: there is none, or they differ in width.
    """
    widths = {shard.shape[1] for shard in shards}
    if len(widths) != 1:
      raise ValueError(
        f"Embeddings need shards of one width, got widths {sorted(widths)}."
      )
    self._shards = list(shards)
    rows = [0, *(len(shard) for shard in shards)]
    self._first_rows = np.cumsum(rows)  # [num_shards + 1]
    self.shape = (int(self._first_rows[-1]), widths.pop())

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(
    self, ids: Int[np.ndarray, "*shape"]
  ) -> Float32[np.ndarray, "*shape D"]:
    """Copies the rows `ids`.

    Raises:
      IndexError: an id outside 0..N-1 (so NO_PASSAGE never reads a passage).
    """
    flat = np.asarray(ids).reshape(-1)
    if flat.size and not (flat.min() >= 0 and flat.max() < len(self)):
      raise IndexError(
        f"Passage ids must be in 0..{len(self) - 1}, got {flat.min()}.."
        f"{flat.max()}."
      )
    rows = np.empty((flat.size, self.shape[1]), np.float32)
    shard_of = np.searchsorted(self._first_rows, flat, side="right") - 1
    for number in np.flatnonzero(np.bincount(shard_of)):
      here = shard_of == number
      local = flat[here] - self._first_rows[number]
      rows[here] = self._shards[number][local]
    return rows.reshape(*np.shape(ids), self.shape[1])

  def rows(self, start: int, stop: int) -> Float32[np.ndarray, "_ D"]:
    """Rows start..stop-1; a copy only where they lie in several shards."""
    first, last = np.clip([start, stop], 0, len(self)).tolist()
    pieces = [
      shard[max(first - begin, 0) : max(last - begin, 0)]
      for begin, shard in zip(
        self._first_rows.tolist(), self._shards, strict=False
      )
    ]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
      return np.empty((0, self.shape[1]), np.float32)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

  def blocks(
    self, num_rows: int
  ) -> Iterator[tuple[int, Float32[np.ndarray, "_ D"]]]:
    """Yields (first row, up to `num_rows` rows), in order, without copies."""
    for first, shard in zip(self._first_rows, self._shards, strict=False):
      for start in range(0, len(shard), num_rows):
        yield int(first) + start, shard[start : start + num_rows]

  def __array__(
    self, dtype: Any = None, copy: bool | None = None
  ) -> np.ndarray:
    """One array of all rows; a copy only where there are several shards."""
    whole = (
      self._shards[0]
      if len(self._shards) == 1
      else np.concatenate(self._shards)
    )
    return np.array(whole, dtype=dtype, copy=copy)
