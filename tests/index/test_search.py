# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.index.search import (
  NO_PASSAGE,
  Neighbors,
  check_search,
  overlap_at_k,
  recall_of,
)


def _neighbors(ids, scores=None):
  ids = np.array(ids, np.int32)
  if scores is None:
    scores = np.where(ids == NO_PASSAGE, -np.inf, 0.0)
  return Neighbors(ids, np.array(scores, np.float32))


def test_overlap_is_the_share_of_passages_in_common_in_any_order():
  first = _neighbors([[1, 2, 3, 4], [5, 6, 7, 8]])
  second = _neighbors([[4, 3, 9, 10], [8, 7, 6, 5]])
  assert overlap_at_k(first, second) == 6 / 8


def test_places_that_no_passage_fills_do_not_count_as_overlap():
  first = _neighbors([[1, 2, NO_PASSAGE]])
  second = _neighbors([[1, 3, NO_PASSAGE]])
  assert overlap_at_k(first, second) == 1 / 2


def test_overlap_of_different_depths_is_refused():
  with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
    overlap_at_k(_neighbors([[1, 2]]), _neighbors([[1, 2, 3]]))


def test_recall_counts_a_passage_that_ties_with_the_last_exact_one():
  exact = _neighbors([[0, 1]], [[2.0, 1.0]])
  tied = _neighbors([[0, 7]], [[2.0, 1.0]])
  worse = _neighbors([[0, 7]], [[2.0, 0.9]])
  assert recall_of(tied, exact, tolerance=0.0) == 1.0
  assert recall_of(worse, exact, tolerance=0.0) == 0.5
  assert recall_of(worse, exact, tolerance=0.2) == 1.0


def test_recall_leaves_out_places_that_the_corpus_cannot_fill():
  exact = _neighbors([[0, NO_PASSAGE]], [[2.0, -np.inf]])
  assert recall_of(exact, exact, tolerance=0.0) == 1.0


def test_bad_searches_are_refused_with_the_values():
  queries = np.ones((2, 4), np.float32)
  with pytest.raises(ValueError, match="k must be at least 1, got 0"):
    check_search(queries, 0, 4)
  with pytest.raises(ValueError, match="width 4, the index has D=8"):
    check_search(queries, 1, 8)
  queries[1, 2] = np.nan
  with pytest.raises(ValueError, match="1 of 2 queries are not finite"):
    check_search(queries, 1, 4)
