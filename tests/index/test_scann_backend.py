# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor
import dataclasses

import numpy as np
import pytest

from realm_jax.config import ScannConfig
from realm_jax.index import scann_backend
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.scann_backend import (
  ScannParameters,
  build_scann,
  load_scann,
  scann_parameters,
)
from realm_jax.index.search import NO_PASSAGE, overlap_at_k

BRUTE_FORCE = ScannConfig()
HASH = ScannConfig(reorder=100)
TREE = ScannConfig(num_leaves=40, leaves_to_search=20, reorder=100)
LAYOUTS = pytest.mark.parametrize("layout", [BRUTE_FORCE, HASH, TREE])
ALL = 2000  # Passages, and candidates where none may be lost.


def _clustered(num_passages=ALL, dim=16):
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(num_passages // 50, dim))
  passages = np.repeat(centres, 50, axis=0)
  passages += 0.3 * rng.normal(size=passages.shape)
  return rng.permutation(passages).astype(np.float32)


def _build(passages, layout=BRUTE_FORCE):
  return build_scann(Embeddings([passages]), layout)


def _exact(passages, queries, k=10):
  return ExactIndex(Embeddings([passages])).search(queries, k)


def _queries(passages):
  return passages[::40] + np.float32(0.05)


@pytest.fixture
def three_parts(monkeypatch):
  monkeypatch.setattr(scann_backend, "PART_ROWS", 700)


@pytest.mark.parametrize(
  "layout",
  [
    BRUTE_FORCE,
    ScannConfig(reorder=ALL),
    ScannConfig(num_leaves=40, leaves_to_search=40, reorder=ALL),
  ],
)
def test_a_search_that_leaves_nothing_out_is_exact(layout):
  passages = _clustered()
  exact = _exact(passages, _queries(passages))

  found = _build(passages, layout).search(_queries(passages), 10)

  np.testing.assert_array_equal(found.ids, exact.ids)
  np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)


def test_a_hundred_hashed_candidates_hold_the_ten_best():
  passages = _clustered()
  found = _build(passages, HASH).search(_queries(passages), 10)
  assert overlap_at_k(_exact(passages, _queries(passages)), found) >= 0.99


def test_every_further_leaf_can_only_find_more(tmp_path):
  """Of one build: what few leaves find differs from build to build."""
  passages = _clustered()
  built = _build(passages, ScannConfig(num_leaves=40, reorder=ALL))
  built.save(tmp_path / "scann")
  exact = _exact(passages, _queries(passages))

  def recall(leaves):
    parameters = dataclasses.replace(built.parameters, leaves_to_search=leaves)
    index = load_scann(tmp_path / "scann", parameters, Embeddings([passages]))
    return overlap_at_k(exact, index.search(_queries(passages), 10))

  recalls = [recall(leaves) for leaves in (5, 10, 20, 40)]

  assert recalls == sorted(recalls)
  # Five leaves chosen at random would hold one in eight.
  assert recalls[0] > 0.5
  assert recalls[-1] == 1.0


@LAYOUTS
def test_scores_are_exact_and_descend(layout):
  passages = _clustered()
  queries = _queries(passages)
  found = _build(passages, layout).search(queries, 10)
  scores = np.einsum("bd,bkd->bk", queries, passages[found.ids])
  np.testing.assert_allclose(found.scores, scores, rtol=1e-4)
  assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("leaves", [0, 10])
def test_parts_are_searched_as_one(three_parts, tmp_path, leaves):
  passages = _clustered()
  layout = ScannConfig(
    num_leaves=leaves, leaves_to_search=leaves, reorder=ALL // 2
  )
  built = _build(passages, layout)
  assert built.parameters.part_rows == 667
  built.save(tmp_path / "scann")
  loaded = load_scann(
    tmp_path / "scann",
    built.parameters,
    Embeddings([passages[:900], passages[900:]]),
  )

  found = loaded.search(_queries(passages), 10)

  exact = _exact(passages, _queries(passages))
  np.testing.assert_array_equal(found.ids, exact.ids)


@LAYOUTS
def test_a_loaded_searcher_finds_the_same_after_the_directory_moved(
  layout, tmp_path
):
  passages = _clustered()
  built = _build(passages, layout)
  built.save(tmp_path / "first")
  (tmp_path / "first").rename(tmp_path / "second")

  loaded = load_scann(
    tmp_path / "second", built.parameters, Embeddings([passages])
  )

  before, after = (x.search(passages[:20], 10) for x in (built, loaded))
  np.testing.assert_array_equal(before.ids, after.ids)
  np.testing.assert_array_equal(before.scores, after.scores)


def test_a_missing_part_is_named(three_parts, tmp_path):
  passages = _clustered()
  built = _build(passages)
  built.save(tmp_path / "scann")
  (tmp_path / "scann" / "00002").rename(tmp_path / "elsewhere")
  with pytest.raises(FileNotFoundError, match="00002 is not there"):
    load_scann(tmp_path / "scann", built.parameters, Embeddings([passages]))


@LAYOUTS
def test_a_search_deeper_than_its_defaults_is_still_filled(layout):
  passages = _clustered()
  found = _build(passages, layout).search(passages[:3], 1500)
  assert (found.ids != NO_PASSAGE).all()
  assert all(len(set(row)) == 1500 for row in found.ids.tolist())


@LAYOUTS
def test_more_than_there_are_fills_the_rest_with_no_passage(layout):
  passages = _clustered(200)
  found = _build(passages, layout).search(passages[:3], 210)
  assert all(set(row[:200]) == set(range(200)) for row in found.ids.tolist())
  assert (found.ids[:, 200:] == NO_PASSAGE).all()
  assert (found.scores[:, 200:] == -np.inf).all()


def test_no_queries_find_nothing():
  found = _build(_clustered(200)).search(np.empty((0, 16), "f4"), 2)
  assert found.ids.shape == found.scores.shape == (0, 2)


def test_many_queries_find_what_each_finds_alone(monkeypatch):
  passages = _clustered()
  index = _build(passages, ScannConfig(reorder=ALL))
  together = index.search(passages[:20], 10)
  monkeypatch.setattr(scann_backend, "_BLOCK_ROWS", 3 * ALL)
  by_threes = index.search(passages[:20], 10)
  np.testing.assert_array_equal(together.ids, by_threes.ids)


def test_two_searchers_answer_many_threads_at_once():
  passages = _clustered()
  indices = [_build(passages, TREE), _build(-passages, HASH)]
  alone = [index.search(passages[:64], 5) for index in indices]

  with ThreadPoolExecutor(4) as threads:
    together = list(
      threads.map(lambda i: indices[i % 2].search(passages[:64], 5), range(16))
    )

  for i, found in enumerate(together):
    np.testing.assert_array_equal(found.ids, alone[i % 2].ids)


def test_the_layout_grows_with_the_corpus():
  assert scann_parameters(19_999) == ScannParameters(part_rows=19_999)
  assert scann_parameters(20_000) == ScannParameters(
    part_rows=20_000, reorder=100
  )
  # 51 equal parts.
  assert scann_parameters(13_353_718) == ScannParameters(
    part_rows=261_838, num_leaves=1023, leaves_to_search=32, reorder=100
  )


@pytest.mark.parametrize(
  ("config", "expected"),
  [
    (
      ScannConfig(reorder=50),
      ScannParameters(part_rows=9_000, reorder=50),
    ),
    (
      ScannConfig(num_leaves=100),
      ScannParameters(
        part_rows=9_000, num_leaves=100, leaves_to_search=4, reorder=100
      ),
    ),
    (
      ScannConfig(num_leaves=100, leaves_to_search=9, reorder=50),
      ScannParameters(
        part_rows=9_000, num_leaves=100, leaves_to_search=9, reorder=50
      ),
    ),
    # No partitions: there is nothing to choose from.
    (ScannConfig(leaves_to_search=9), ScannParameters(part_rows=9_000)),
  ],
)
def test_what_the_config_sets_goes_before_the_rule(config, expected):
  assert scann_parameters(9_000, config) == expected


def test_more_partitions_than_passages_are_refused():
  with pytest.raises(ValueError, match=r"num_leaves=100 exceeds the 99 pass"):
    scann_parameters(99, ScannConfig(num_leaves=100))


def test_a_planted_pickle_is_never_loaded(tmp_path):
  passages = _clustered(200)
  built = _build(passages)
  built.save(tmp_path / "scann")
  pickled = tmp_path / "scann" / "00000" / "scann_docids.pkl"
  pickled.write_bytes(b"cos\nsystem\n.")
  with pytest.raises(ValueError, match="is a pickle"):
    load_scann(tmp_path / "scann", built.parameters, Embeddings([passages]))
