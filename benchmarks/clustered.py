# SPDX-License-Identifier: Apache-2.0
"""Vectors that lie as passages' embeddings do: in clusters within clusters.

N / 100 centres, and noise about them, are normal with variances that fall as
1 / i over D directions, as principal components of embeddings do. So centres
have near and far neighbours; equally distant ones would have no order that an
index could use. A vector's cosine is 0.9 with the nearest other one and 0.87
with the tenth, at a million.
"""

import numpy as np

_CLUSTER_SIZE = 100
_NOISE = 0.4  # Of a vector about its centre, over the centres' own spread.
_CHUNK_ROWS = 2**16


class Clustered:
  """Unit vectors f32[N, D] and queries like them; the same for a seed."""

  def __init__(self, num_vectors: int, dim: int, seed: int) -> None:
    """Draws the centres."""
    self._shape, self._seed = (num_vectors, dim), seed
    rng = self._rng(0)
    scales = np.arange(1, dim + 1) ** -0.5
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    basis = scales[:, None] / np.linalg.norm(scales) * rotation
    self._basis = basis.astype(np.float32)  # [D, D]
    self._centres = self._normal(rng, max(1, num_vectors // _CLUSTER_SIZE))

  def vectors(self) -> np.ndarray:
    """Returns f32[N, D], drawn in chunks: memory holds little else."""
    vectors = np.empty(self._shape, np.float32)
    for number, start in enumerate(range(0, len(vectors), _CHUNK_ROWS)):
      chunk = vectors[start : start + _CHUNK_ROWS]
      chunk[:] = self._draw(self._rng(1, number), len(chunk))
    return vectors

  def queries(self, count: int) -> np.ndarray:
    """Returns f32[count, D], none of them among the vectors."""
    return self._draw(self._rng(2), count)

  def _rng(self, *stream: int) -> np.random.Generator:
    return np.random.default_rng([self._seed, *stream])

  def _normal(self, rng: np.random.Generator, count: int) -> np.ndarray:
    normal = rng.standard_normal((count, self._shape[1]), np.float32)
    return normal @ self._basis

  def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
    rows = np.float32(_NOISE) * self._normal(rng, count)
    rows += self._centres[rng.integers(len(self._centres), size=count)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
