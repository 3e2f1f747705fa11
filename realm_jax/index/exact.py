# SPDX-License-Identifier: Apache-2.0
"""Exact search in NumPy: small corpora, and the others' reference."""

from jaxtyping import Float32, UInt64
import numpy as np

from realm_jax.index.embeddings import Embeddings
from realm_jax.index.search import NO_PASSAGE, Neighbors, check_search

_BLOCK_ROWS = 2**14  # Passages scored at once,
_BLOCK_QUERIES = 256  # against so many queries: 32 MiB of keys.
_NOTHING = np.uint64(0)  # Below every key.


class ExactIndex:
  """Scores every passage; of equal scores the lower id comes first."""

  def __init__(self, embeddings: Embeddings) -> None:
    self._embeddings = embeddings

  def search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    """See `Index.search`."""
    check_search(queries, k, self._embeddings.shape[1])
    keys = [
      self._best_keys(queries[start : start + _BLOCK_QUERIES], k)
      for start in range(0, len(queries), _BLOCK_QUERIES)
    ]
    return _decode(np.concatenate(keys) if keys else np.empty((0, k), "u8"))

  def _best_keys(
    self, queries: Float32[np.ndarray, "B D"], k: int
  ) -> UInt64[np.ndarray, "B k"]:
    best = np.full((len(queries), k), _NOTHING)
    for first, block in self._embeddings.blocks(_BLOCK_ROWS):
      keys = _encode(queries @ block.T, first)
      best = np.concatenate([best, keys], axis=1)
      best = np.partition(best, -k, axis=1)[:, -k:]
    return np.sort(best, axis=1)[:, ::-1]


def _encode(
  scores: Float32[np.ndarray, "B n"], first_id: int
) -> UInt64[np.ndarray, "B n"]:
  """Numbers that sort by score and then by id, lower ids larger.

  So selecting the k largest is a partition of plain integers, and ties come
  out the same whatever the blocks are.
  """
  bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0.
  # IEEE floats sort as integers once negative ones are flipped.
  negative = bits >> 31 == 1
  ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
  ids = np.arange(first_id, first_id + scores.shape[1], dtype=np.uint32)
  return ordered.astype(np.uint64) << 32 | ~ids[None, :]


def _decode(keys: UInt64[np.ndarray, "B k"]) -> Neighbors:
  ordered = (keys >> 32).astype(np.uint32)
  negative = ordered >> 31 == 0
  bits = np.where(negative, ~ordered, ordered & np.uint32(2**31 - 1))
  ids = (~keys.astype(np.uint32)).astype(np.int32)
  found = keys != _NOTHING
  return Neighbors(
    ids=np.where(found, ids, np.int32(NO_PASSAGE)),
    scores=np.where(found, bits.view(np.float32), np.float32(-np.inf)),
  )
