# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import Neighbors
from realm_jax.index.verify import VersionRefused, verify


def _vectors(num_passages=400):
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(num_passages, 4))
  vectors *= 2 / np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors.astype(np.float32)


def _verify(vectors, index=None, embed=None, shape=None):
  embeddings = Embeddings([vectors])
  return verify(
    index or ExactIndex(embeddings),
    embeddings,
    embed or (lambda ids: vectors[ids]),
    shape=shape or vectors.shape,
    min_recall=0.95,
    seed=0,
  )


def test_a_sound_version_passes_with_its_figures():
  vectors = _vectors()
  checks = _verify(vectors)
  assert checks["recall_at_10"] == 1.0
  assert checks["self_retrieval"] == 1.0  # All are of equal length.
  assert checks["reembed_error"] == 0.0
  assert checks["min_norm"] == pytest.approx(2)
  assert checks["max_norm"] == pytest.approx(2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_mean_nothing_are_refused_by_passage(value):
  vectors = _vectors()
  vectors[17] = value
  with pytest.raises(VersionRefused, match=r"1 of 400.*passage 17"):
    _verify(vectors)


def test_a_missing_passage_is_refused():
  with pytest.raises(VersionRefused, match=r"\(399, 4\).*\(400, 4\)"):
    _verify(_vectors(399), shape=(400, 4))


def test_rows_in_another_order_than_passages_are_refused():
  vectors = _vectors()
  with pytest.raises(VersionRefused, match="do not match"):
    _verify(vectors, embed=lambda ids: vectors[::-1][ids])


class _Wrong:
  """Finds what exact search finds, but for `change`."""

  def __init__(self, vectors, change):
    self._exact = ExactIndex(Embeddings([vectors]))
    self._change = change

  def search(self, queries, k):
    found = self._exact.search(queries, k)
    return Neighbors(self._change(found.ids), found.scores)


def _off_by_one(ids):
  return (ids + 1) % 400


def _one_place_empty(ids):
  return np.where(np.arange(10) == 9, np.int32(-1), ids)


def _first_passage_twice(ids):
  return np.concatenate([ids[:, :1], ids[:, :9]], axis=1)


@pytest.mark.parametrize(
  "change", [_off_by_one, _one_place_empty, _first_passage_twice]
)
def test_a_searcher_that_finds_the_wrong_passages_is_refused(change):
  vectors = _vectors()
  with pytest.raises(VersionRefused, match=r"below refresh.min_recall_at_10"):
    _verify(vectors, index=_Wrong(vectors, change))


def test_collapsed_vectors_pass_as_ties_are_no_errors():
  vectors = np.ones((400, 4), np.float32)
  reverse = _Wrong(vectors, lambda ids: np.int32(399) - ids)
  checks = _verify(vectors, index=reverse)
  assert checks["recall_at_10"] == 1.0
  assert checks["self_retrieval"] < 0.1


def test_a_corpus_of_fewer_than_ten_passages_passes():
  assert _verify(_vectors(3))["recall_at_10"] == 1.0
