# SPDX-License-Identifier: Apache-2.0
"""Approximate search with ScaNN (Guo et al., 2020), in host memory.

ScaNN finds candidates by their hashes; the embeddings, memory-mapped by
`store`, then score them exactly. ScaNN could do the latter, too, but only from
a copy of its own: its loader (1.4.2) maps no file, it reads each into memory.
So a process needs about D / 2 + 10 bytes a passage, and D + 20 where passages
are partitioned, beside the file that all processes share, instead of 4 D more.

That loader also holds the GIL until it is done. Passages are therefore laid
out in parts of at most `PART_ROWS` that are loaded one after another: a
trainer that opens a version in the background goes on in between.
"""

from collections.abc import Sequence
import dataclasses
import math
import os
import pathlib
import time

from jaxtyping import Float32, Int32
import numpy as np
from scann.scann_ops.py import scann_ops_pybind

from realm_jax.config import ScannConfig
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.search import NO_PASSAGE, Neighbors, check_search

# Up to here scoring every passage costs less than a step of any model.
BRUTE_FORCE_BELOW = 20_000
# Up to here hashing alone is fast enough, and loses no passage to a partition.
TREE_FROM = 100_000
PART_ROWS = 2**18
_REORDER = 100
_TRAINING_ROWS = 50_000  # Of a part, for its partitions and its hash.
_BLOCK_ROWS = 2**16  # Candidates scored at once: 32 MiB at D = 128.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannParameters:
  """How an index is laid out; 0 leaves a stage out.

  Without hashing (`reorder` 0) it is a brute-force searcher.
  """

  part_rows: int  # Passages of a part; the last may have fewer.
  num_leaves: int = 0  # Partitions of a part.
  leaves_to_search: int = 0  # Of each part.
  reorder: int = 0  # Candidates by hash, of all parts, scored exactly.
  dims_per_block: int = 2  # Of the hash: four bits a block.


def scann_parameters(
  num_passages: int, config: ScannConfig | None = None
) -> ScannParameters:
  """Chooses a layout by the number of passages N.

  N < 20,000: brute force. N < 100,000: hash all. Above: parts of at most
  2**18 passages, equal but for rounding; each has 2 sqrt(part) partitions, of
  which one in 32 is searched. Of the hashed, the best 100 are scored exactly.

  The goal is a recall@10 of 0.99. Hashing all finds 1.000 at 20,000, and 50
  candidates would do. What partitions lose was measured (benchmarks/
  partitions.py, D = 128) on half a million vectors in clusters within
  clusters, and on the sentences of 20,958 Wikipedia passages by latent
  semantic analysis, whose neighbours are less alike:

      partitions               searched   recall@10        us a query, one core
      2 sqrt, passages once    1 in 8     1.000   0.987    355    86
                               1 in 16    0.999   0.980    254    68
      8 sqrt, passages once    1 in 16    1.000   0.988    361   105
      2 sqrt, passages twice   1 in 16    1.000   0.997    442    97
                               1 in 32    0.999   0.995    298    80
                               1 in 64    0.997   0.990    217    72

  With ScaNN's defaults, which merge small partitions, one in 16 of 2000 found
  0.970 for a million vectors in clusters.

  Args:
    num_passages: N.
    config: what it sets goes before the rule. `reorder` or `num_leaves` makes
      a small index a hashed one; leaves_to_search is cut to the leaves there
      are.

  Raises:
    ValueError: there are fewer passages than `config.num_leaves`.
  """
  config = config or ScannConfig()
  num_parts = max(1, math.ceil(num_passages / PART_ROWS))
  part_rows = max(1, math.ceil(num_passages / num_parts))
  if config.num_leaves > part_rows:
    raise ValueError(
      f"retrieval.scann.num_leaves={config.num_leaves} exceeds the {part_rows} "
      "passages that are to be partitioned. Lower it, or use 0."
    )
  leaves, reorder = config.num_leaves, config.reorder
  if not leaves and num_passages >= TREE_FROM:
    leaves = round(2 * math.sqrt(part_rows))
  if not reorder and (leaves or num_passages >= BRUTE_FORCE_BELOW):
    reorder = _REORDER
  return ScannParameters(
    part_rows=part_rows,
    num_leaves=leaves,
    leaves_to_search=min(
      config.leaves_to_search or math.ceil(leaves / 32), leaves
    ),
    reorder=reorder,
  )


class ScannIndex:
  """ScaNN searchers over consecutive parts of the passages.

  Searching releases the GIL.
  """

  def __init__(
    self,
    parts: Sequence[scann_ops_pybind.ScannSearcher],
    parameters: ScannParameters,
    embeddings: Embeddings,
  ) -> None:
    """Wraps searchers; see `build_scann` and `load_scann`."""
    self._parts = list(parts)
    self._embeddings = embeddings
    self.parameters = parameters

  def search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    """See `Index.search`; scores are exact, the choice approximate."""
    check_search(queries, k, self._embeddings.shape[1])
    # Fewer than k candidates by hash could never give k passages.
    count = max(self.parameters.reorder, 2 * k)
    size = max(1, _BLOCK_ROWS // count)
    found = [
      self._search_block(queries[start : start + size], k, count)
      for start in range(0, len(queries), size)
    ]
    empty = Neighbors(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    return Neighbors(*map(np.concatenate, zip(empty, *found, strict=True)))

  def _search_block(
    self, queries: Float32[np.ndarray, "B D"], k: int, count: int
  ) -> Neighbors:
    if not self.parameters.reorder:
      return self._candidates(queries, k, 0)
    leaves = self.parameters.leaves_to_search
    found = self._candidates(queries, count, leaves)
    # The leaves that are searched may hold fewer than k passages between
    # them; all leaves hold as many as there are.
    if leaves and (found.ids[:, :k] == NO_PASSAGE).any():
      found = self._candidates(queries, count, self.parameters.num_leaves)
    return _best(self._score(queries, found.ids), k)

  def _candidates(
    self, queries: Float32[np.ndarray, "B D"], count: int, leaves: int
  ) -> Neighbors:
    """Returns the best passages by hash, with ScaNN's scores."""
    of_parts = []
    for number, part in enumerate(self._parts):
      rows, scores = part.search_batched(
        queries, final_num_neighbors=count, leaves_to_search=leaves or None
      )
      found = ~np.isnan(scores)  # ScaNN fills up with (0, NaN).
      ids = rows.astype(np.int32) + np.int32(number * self.parameters.part_rows)
      of_parts.append(
        Neighbors(
          ids=np.where(found, ids, np.int32(NO_PASSAGE)),
          scores=np.where(found, scores, np.float32(-np.inf)),
        )
      )
    if len(of_parts) == 1:
      return of_parts[0]
    ids, scores = (
      np.concatenate(arrays, axis=1) for arrays in zip(*of_parts, strict=True)
    )
    return _best(Neighbors(ids, scores), count)

  def _score(
    self,
    queries: Float32[np.ndarray, "B D"],
    ids: Int32[np.ndarray, "B n"],
  ) -> Neighbors:
    missing = ids == NO_PASSAGE
    vectors = self._embeddings[np.where(missing, 0, ids)]  # [B, n, D]
    scores = (vectors @ queries[:, :, None])[:, :, 0]
    return Neighbors(ids, np.where(missing, np.float32(-np.inf), scores))

  def save(self, directory: pathlib.Path) -> None:
    """Writes the searchers' files into a new directory, one a part."""
    directory.mkdir()
    for number, part in enumerate(self._parts):
      folder = _part_folder(directory, number)
      folder.mkdir()
      # Paths inside the files are relative: the directory may be moved.
      part.serialize(os.fspath(folder), relative_path=True)


def _best(found: Neighbors, k: int) -> Neighbors:
  order = np.argsort(-found.scores, axis=1, kind="stable")[:, :k]
  return Neighbors(
    ids=np.take_along_axis(found.ids, order, axis=1),
    scores=np.take_along_axis(found.scores, order, axis=1),
  )


def _part_folder(directory: pathlib.Path, number: int) -> pathlib.Path:
  return directory / f"{number:05d}"


def build_scann(
  embeddings: Embeddings, config: ScannConfig | None = None
) -> ScannIndex:
  """Builds an index, laid out as `scann_parameters` says.

  With partitions, two builds from the same vectors can differ slightly:
  ScaNN sums its clusters in parallel.

  Memory beside the embeddings: ScaNN copies the part at work (4 D bytes a
  passage of it) and keeps the hashes.

  Raises:
    ValueError: see `scann_parameters`.
  """
  parameters = scann_parameters(len(embeddings), config)
  parts = [
    _build_part(
      embeddings.rows(start, start + parameters.part_rows), parameters
    )
    for start in range(0, len(embeddings), parameters.part_rows)
  ]
  return ScannIndex(parts, parameters, embeddings)


def _build_part(
  rows: Float32[np.ndarray, "n D"], parameters: ScannParameters
) -> scann_ops_pybind.ScannSearcher:
  builder = scann_ops_pybind.builder(
    rows, num_neighbors=10, distance_measure="dot_product"
  )
  if not parameters.reorder:
    return builder.score_brute_force().build()
  training_rows = min(len(rows), _TRAINING_ROWS)
  if parameters.num_leaves:
    builder = builder.tree(
      parameters.num_leaves,
      parameters.leaves_to_search,
      training_sample_size=training_rows,
      # ScaNN's own 50 would merge most partitions: the sample has about 50
      # passages for each.
      min_partition_size=1,
      # By direction: what counts is the inner product with the query.
      spherical=True,
      # Each passage stands in a second partition, chosen for queries that
      # miss it in the first (SOAR; Sun et al., 2023); ScaNN's own settings.
      soar_lambda=1.5,
      overretrieve_factor=2.0,
    )
  # 0.2 is ScaNN's own advice for inner products: errors along a passage's
  # direction count more, as they are those that move its score.
  return builder.score_ah(
    parameters.dims_per_block,
    anisotropic_quantization_threshold=0.2,
    training_sample_size=training_rows,
  ).build()


def load_scann(
  directory: pathlib.Path, parameters: ScannParameters, embeddings: Embeddings
) -> ScannIndex:
  """Loads what `ScannIndex.save` wrote.

  Raises:
    FileNotFoundError: a part is not there.
    ValueError: a part holds a pickle, which loading would execute.
  """
  parts: list[scann_ops_pybind.ScannSearcher] = []
  seconds = 0.0
  for number in range(-(-len(embeddings) // parameters.part_rows)):
    # A step takes and gives the GIL several times, and would wait for a part
    # each time: it gets as long in between.
    time.sleep(seconds)
    started = time.perf_counter()
    parts.append(_load_part(_part_folder(directory, number)))
    seconds = time.perf_counter() - started
  return ScannIndex(parts, parameters, embeddings)


def _load_part(folder: pathlib.Path) -> scann_ops_pybind.ScannSearcher:
  if not folder.exists():
    raise FileNotFoundError(
      f"{folder} is not there. Delete the index version and build it again."
    )
  pickled = folder / "scann_docids.pkl"
  if pickled.exists():
    raise ValueError(
      f"{pickled} is a pickle, which this project never writes, and loading "
      "it could run any code. Delete the index version and build it again."
    )
  return scann_ops_pybind.load_searcher(
    os.fspath(folder), assets_backcompat_shim=False
  )
