# SPDX-License-Identifier: Apache-2.0
"""Measures what ScaNN's partitions lose: recall@10 by the share searched.

    python -m benchmarks.partitions --passages=524288
    python -m benchmarks.partitions --vectors=embeddings.npy

Without --vectors, those of benchmarks/clustered.py. Given ones may be a shard
of a published index; their queries are 1024 of them, perturbed. All else is
as `realm` lays it out by default.
"""

import dataclasses
import time

from absl import app, flags
import numpy as np

from benchmarks.clustered import Clustered
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.scann_backend import build_scann, scann_parameters
from realm_jax.index.search import Neighbors, recall_of

_PASSAGES = flags.DEFINE_integer("passages", 2**19, "Drawn, of D = 128.")
_VECTORS = flags.DEFINE_string("vectors", "", "Given: f32[N, D] as .npy.")
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.")

_QUERIES = 1024
_BATCH = 64
_K = 10
_NOISE = 0.1  # Of a given query, over the vectors' own length.
_ONE_IN = (128, 64, 32, 16, 8, 4)


def _given(path: str, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
  vectors = np.ascontiguousarray(np.load(path, allow_pickle=False), np.float32)
  queries = vectors[rng.permutation(len(vectors))[:_QUERIES]]
  noise = rng.standard_normal(queries.shape, np.float32)
  lengths = np.linalg.norm(queries, axis=1, keepdims=True)
  return vectors, queries + noise * lengths * np.float32(
    _NOISE / np.sqrt(vectors.shape[1])
  )


def main(argv: list[str]) -> None:
  """Prints a line for each share."""
  del argv
  if _VECTORS.value:
    vectors, queries = _given(
      _VECTORS.value, np.random.default_rng(_SEED.value)
    )
  else:
    data = Clustered(_PASSAGES.value, 128, _SEED.value)
    vectors, queries = data.vectors(), data.queries(_QUERIES)
  embeddings = Embeddings([vectors])
  exact = ExactIndex(embeddings).search(queries, _K)
  started = time.perf_counter()
  index = build_scann(embeddings)
  print(f"built in {time.perf_counter() - started:.1f} s: {index.parameters}")
  leaves = index.parameters.num_leaves
  if not leaves:
    raise app.UsageError(
      f"{scann_parameters(len(vectors))} has no partitions: N is too small."
    )
  batches = np.split(queries, range(_BATCH, len(queries), _BATCH))
  for share in _ONE_IN:
    index.parameters = dataclasses.replace(
      index.parameters, leaves_to_search=-(-leaves // share)
    )
    started = time.process_time()
    found = [index.search(batch, _K) for batch in batches]
    micros = (time.process_time() - started) / len(queries) * 1e6
    together = Neighbors(*map(np.concatenate, zip(*found, strict=True)))
    recall = recall_of(together, exact, tolerance=1e-5)
    print(f"1 in {share:<4} recall@{_K} {recall:.4f}  {micros:.0f} us a query")


if __name__ == "__main__":
  app.run(main)
