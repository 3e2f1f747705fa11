# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.scann_backend import (
  ScannParameters,
  build_scann,
  load_scann,
  scann_parameters,
)
from realm_jax.index.search import NO_PASSAGE, overlap_at_k

BRUTE_FORCE = ScannParameters()
HASH = ScannParameters(reorder=100)
TREE = ScannParameters(num_leaves=40, leaves_to_search=20, reorder=100)
LAYOUTS = pytest.mark.parametrize("layout", [BRUTE_FORCE, HASH, TREE])


def _clustered(num_passages=2000, dim=16):
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(num_passages // 50, dim))
  passages = np.repeat(centres, 50, axis=0)
  passages += 0.3 * rng.normal(size=passages.shape)
  return rng.permutation(passages).astype(np.float32)


@LAYOUTS
def test_finds_nearly_all_that_exact_search_finds(layout):
  passages = _clustered()
  queries = passages[::40] + np.float32(0.05)
  exact = ExactIndex(Embeddings([passages])).search(queries, 10)

  found = build_scann(passages, layout).search(queries, 10)

  floor = 1.0 if layout is BRUTE_FORCE else 0.9
  assert overlap_at_k(exact, found) >= floor
  scores = np.einsum("bd,bkd->bk", queries, passages[found.ids])
  np.testing.assert_allclose(found.scores, scores, rtol=1e-4)
  assert (np.diff(found.scores, axis=1) <= 0).all()


@LAYOUTS
def test_a_loaded_searcher_finds_the_same_after_the_directory_moved(
  layout, tmp_path
):
  passages = _clustered()
  built = build_scann(passages, layout)
  built.save(tmp_path / "first")
  (tmp_path / "first").rename(tmp_path / "second")

  loaded = load_scann(tmp_path / "second", layout, dim=16)

  before, after = (x.search(passages[:20], 10) for x in (built, loaded))
  np.testing.assert_array_equal(before.ids, after.ids)
  np.testing.assert_array_equal(before.scores, after.scores)


@LAYOUTS
def test_a_search_deeper_than_its_defaults_is_still_filled(layout):
  passages = _clustered()
  found = build_scann(passages, layout).search(passages[:3], 1500)
  assert (found.ids != NO_PASSAGE).all()
  assert all(len(set(row)) == 1500 for row in found.ids.tolist())


@LAYOUTS
def test_more_than_there_are_fills_the_rest_with_no_passage(layout):
  passages = _clustered(200)
  found = build_scann(passages, layout).search(passages[:3], 210)
  assert all(set(row[:200]) == set(range(200)) for row in found.ids.tolist())
  assert (found.ids[:, 200:] == NO_PASSAGE).all()
  assert (found.scores[:, 200:] == -np.inf).all()


def test_no_queries_find_nothing():
  found = build_scann(_clustered(200)).search(np.empty((0, 16), "f4"), 2)
  assert found.ids.shape == found.scores.shape == (0, 2)


def test_two_searchers_answer_many_threads_at_once():
  passages = _clustered()
  indices = [build_scann(passages, TREE), build_scann(-passages, HASH)]
  alone = [index.search(passages[:64], 5) for index in indices]

  with ThreadPoolExecutor(4) as threads:
    together = list(
      threads.map(lambda i: indices[i % 2].search(passages[:64], 5), range(16))
    )

  for i, found in enumerate(together):
    np.testing.assert_array_equal(found.ids, alone[i % 2].ids)


def test_the_layout_grows_with_the_corpus():
  assert scann_parameters(19_999) == BRUTE_FORCE
  assert scann_parameters(20_000) == ScannParameters(reorder=200)
  assert scann_parameters(13_353_718) == ScannParameters(
    num_leaves=3654, leaves_to_search=73, reorder=200
  )


def test_a_planted_pickle_is_never_loaded(tmp_path):
  build_scann(_clustered(200)).save(tmp_path / "scann")
  (tmp_path / "scann" / "scann_docids.pkl").write_bytes(b"cos\nsystem\n.")
  with pytest.raises(ValueError, match="is a pickle"):
    load_scann(tmp_path / "scann", BRUTE_FORCE, dim=16)
