# SPDX-License-Identifier: Apache-2.0
"""Approximate search with ScaNN (Guo et al., 2020), in host memory."""

import dataclasses
import math
import os
import pathlib

from jaxtyping import Float32
import numpy as np
from scann.scann_ops.py import scann_ops_pybind

from realm_jax.index.search import NO_PASSAGE, Neighbors, check_search

# Up to here scoring every passage costs less than a step of any model.
BRUTE_FORCE_BELOW = 20_000
# Up to here hashing alone is fast enough, and loses no passage to a partition.
TREE_FROM = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannParameters:
  """How a searcher is laid out; 0 leaves the part out.

  Without hashing (`reorder` 0) it is a brute-force searcher.
  """

  num_leaves: int = 0  # Partitions of the passages.
  leaves_to_search: int = 0
  reorder: int = 0  # Candidates by hash that are scored exactly.
  dims_per_block: int = 2  # Of the hash.


def scann_parameters(num_passages: int) -> ScannParameters:
  """Chooses a layout by the number of passages N.

  N < 20,000: brute force. N < 100,000: hash all, score the best 200 exactly.
  Above: sqrt(N) partitions, of which 2% (at least 10) are searched; on
  clustered vectors that finds 98% of the exact ten at a million passages.
  """
  if num_passages < BRUTE_FORCE_BELOW:
    return ScannParameters()
  if num_passages < TREE_FROM:
    return ScannParameters(reorder=200)
  leaves = round(math.sqrt(num_passages))
  return ScannParameters(
    num_leaves=leaves,
    leaves_to_search=max(10, leaves // 50),
    reorder=200,
  )


class ScannIndex:
  """A ScaNN searcher; searching releases the GIL."""

  def __init__(
    self,
    searcher: scann_ops_pybind.ScannSearcher,
    parameters: ScannParameters,
    dim: int,
  ) -> None:
    """Wraps a searcher; see `build_scann` and `load_scann`."""
    self._searcher = searcher
    self._dim = dim
    self.parameters = parameters

  def search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    """See `Index.search`; scores are exact, the choice approximate."""
    check_search(queries, k, self._dim)
    if not len(queries):  # ScaNN cannot tell the width of no queries.
      return Neighbors(np.empty((0, k), np.int32), np.empty((0, k), "f4"))
    found = self._search(queries, k, self.parameters.leaves_to_search)
    # The leaves that are searched may hold fewer than k passages between
    # them; all leaves hold as many as there are.
    if self.parameters.num_leaves and (found.ids == NO_PASSAGE).any():
      found = self._search(queries, k, self.parameters.num_leaves)
    return found

  def _search(
    self, queries: Float32[np.ndarray, "B D"], k: int, leaves: int
  ) -> Neighbors:
    # Fewer than k candidates by hash could never give k passages.
    candidates = max(self.parameters.reorder, 2 * k)
    ids, scores = self._searcher.search_batched(
      queries,
      final_num_neighbors=k,
      pre_reorder_num_neighbors=candidates if self.parameters.reorder else None,
      leaves_to_search=leaves or None,
    )
    # ScaNN fills up with (0, NaN).
    found = ~np.isnan(scores)
    return Neighbors(
      ids=np.where(found, ids.astype(np.int32), np.int32(NO_PASSAGE)),
      scores=np.where(found, scores, np.float32(-np.inf)),
    )

  def save(self, directory: pathlib.Path) -> None:
    """Writes the searcher's files into a new directory."""
    directory.mkdir()
    # Paths inside the files are relative: the directory may be moved.
    self._searcher.serialize(os.fspath(directory), relative_path=True)


def build_scann(
  embeddings: Float32[np.ndarray, "N D"],
  parameters: ScannParameters | None = None,
) -> ScannIndex:
  """Builds a searcher, by default laid out for the number of passages.

  With partitions, two builds from the same vectors can differ slightly:
  ScaNN sums its clusters in parallel.
  """
  if parameters is None:
    parameters = scann_parameters(len(embeddings))
  builder = scann_ops_pybind.builder(
    embeddings, num_neighbors=10, distance_measure="dot_product"
  )
  if parameters.num_leaves:
    builder = builder.tree(
      parameters.num_leaves,
      parameters.leaves_to_search,
      training_sample_size=min(len(embeddings), 250_000),
    )
  if parameters.reorder:
    # 0.2 is ScaNN's own advice for inner products: errors along a passage's
    # direction count more, as they are those that move its score.
    builder = builder.score_ah(
      parameters.dims_per_block, anisotropic_quantization_threshold=0.2
    ).reorder(parameters.reorder)
  else:
    builder = builder.score_brute_force()
  return ScannIndex(builder.build(), parameters, embeddings.shape[1])


def load_scann(
  directory: pathlib.Path, parameters: ScannParameters, dim: int
) -> ScannIndex:
  """Loads what `ScannIndex.save` wrote.

  Raises:
    ValueError: the directory holds a pickle, which loading would execute.
  """
  pickled = directory / "scann_docids.pkl"
  if pickled.exists():
    raise ValueError(
      f"{pickled} is a pickle, which this project never writes, and loading "
      "it could run any code. Delete the index version and build it again."
    )
  searcher = scann_ops_pybind.load_searcher(
    os.fspath(directory), assets_backcompat_shim=False
  )
  return ScannIndex(searcher, parameters, dim)
