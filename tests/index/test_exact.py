# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.index import exact
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import NO_PASSAGE


def _integers(rng, *shape):
  # Small integers: every sum is exact, and ties are everywhere.
  return rng.integers(-3, 4, size=shape).astype(np.float32)


@pytest.mark.parametrize("block_rows", [7, 64, 2**14])
def test_equals_a_stable_full_sort_with_ties_in_any_blocks(
  monkeypatch, block_rows
):
  monkeypatch.setattr(exact, "_BLOCK_ROWS", block_rows)
  monkeypatch.setattr(exact, "_BLOCK_QUERIES", 4)
  rng = np.random.default_rng(0)
  passages, queries = _integers(rng, 300, 5), _integers(rng, 9, 5)
  index = ExactIndex(Embeddings([passages[:90], passages[90:]]))

  found = index.search(queries, 50)

  scores = queries @ passages.T
  wanted = np.argsort(-scores, axis=1, kind="stable")[:, :50]
  np.testing.assert_array_equal(found.ids, wanted)
  np.testing.assert_array_equal(
    found.scores, np.take_along_axis(scores, wanted, axis=1)
  )


def test_negative_zero_and_extreme_scores_sort_as_numbers():
  passages = np.array([[-0.0], [0.0], [-3e38], [1e-45], [3e38], [-1e-45]], "f4")
  found = ExactIndex(Embeddings([passages])).search(np.ones((1, 1), "f4"), 6)
  np.testing.assert_array_equal(found.ids, [[4, 3, 0, 1, 5, 2]])


def test_a_small_corpus_fills_the_rest_with_no_passage():
  passages = np.array([[1.0], [2.0]], np.float32)
  found = ExactIndex(Embeddings([passages])).search(np.ones((1, 1), "f4"), 4)
  np.testing.assert_array_equal(found.ids, [[1, 0, NO_PASSAGE, NO_PASSAGE]])
  np.testing.assert_array_equal(found.scores, [[2, 1, -np.inf, -np.inf]])


def test_no_queries_find_nothing():
  index = ExactIndex(Embeddings([np.ones((3, 2), np.float32)]))
  found = index.search(np.empty((0, 2), np.float32), 2)
  assert found.ids.shape == found.scores.shape == (0, 2)
