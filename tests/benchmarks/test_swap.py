# SPDX-License-Identifier: Apache-2.0
from benchmarks import swap
from benchmarks.clustered import Clustered
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.scann_backend import build_scann


def test_a_version_is_published_and_opened_beside_steps(tmp_path):
  vectors = Clustered(1000, 128, seed=0).vectors()
  swap.publish_version(tmp_path, vectors, build_scann(Embeddings([vectors])))
  figures = swap.measure(tmp_path, len(vectors))
  assert set(figures) == {"step", "longest_step", "hold", "open"}
  assert all(seconds > 0 for seconds in figures.values())
