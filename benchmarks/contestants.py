# SPDX-License-Identifier: Apache-2.0
"""Indices that benchmarks/index.py compares, under one interface.

Each imports its library when it is built, in a process of its own.
"""

from collections.abc import Callable
import math
from typing import Protocol

import numpy as np


class Contestant(Protocol):
  """An index of vectors f32[N, D], built by its constructor."""

  efforts: tuple[int, ...]  # That a search may take, cheapest first.

  def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
    """Returns the ids [B, k] of queries f32[B, D], on the calling thread."""
    ...


class Exact:
  """Our exact search."""

  efforts: tuple[int, ...] = (0,)

  def __init__(self, vectors: np.ndarray) -> None:
    from realm_jax.index.embeddings import Embeddings
    from realm_jax.index.exact import ExactIndex

    self._index = ExactIndex(Embeddings([vectors]))

  def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
    """See `Contestant`."""
    del effort
    return self._index.search(queries, k).ids


class Scann:
  """Our ScaNN index, laid out for N by its own rule."""

  def __init__(self, vectors: np.ndarray) -> None:
    from realm_jax.index.embeddings import Embeddings
    from realm_jax.index.scann_backend import build_scann

    self.index = build_scann(Embeddings([vectors]))
    self.efforts: tuple[int, ...] = (self.index.parameters.leaves_to_search,)

  def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
    """See `Contestant`."""
    del effort
    return self.index.search(queries, k).ids


class FaissHnsw:
  """A graph of 32 neighbours a vector; effort is efSearch."""

  efforts: tuple[int, ...] = (16, 32, 64, 128, 256, 512)

  def __init__(self, vectors: np.ndarray) -> None:
    import faiss

    self._index = faiss.IndexHNSWFlat(
      vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT
    )
    self._index.add(vectors)

  def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
    """See `Contestant`."""
    import faiss

    params = faiss.SearchParametersHNSW(efSearch=effort)
    return self._index.search(queries, k, params=params)[1]


class FaissIvfPq:
  """Partitions and a product quantiser with SIMD; effort is nprobe.

  As many partitions as ours (2 sqrt(N)) and as many bits a vector; as many
  candidates are scored exactly.
  """

  efforts: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)

  def __init__(self, vectors: np.ndarray) -> None:
    import faiss

    num_vectors, dim = vectors.shape
    self._index = faiss.index_factory(
      dim,
      f"IVF{round(2 * math.sqrt(num_vectors))},PQ{dim // 2}x4fs,RFlat",
      faiss.METRIC_INNER_PRODUCT,
    )
    self._index.train(vectors[:_TRAINING_ROWS])
    self._index.add(vectors)

  def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
    """See `Contestant`."""
    import faiss

    params = faiss.IndexRefineSearchParameters(
      k_factor=_CANDIDATES / k,
      base_index_params=faiss.SearchParametersIVF(nprobe=effort),
    )
    return self._index.search(queries, k, params=params)[1]


_CANDIDATES = 100
_TRAINING_ROWS = 100_000

CONTESTANTS: dict[str, Callable[[np.ndarray], Contestant]] = {
  "scann": Scann,
  "exact": Exact,
  "faiss_hnsw": FaissHnsw,
  "faiss_ivfpq": FaissIvfPq,
}
