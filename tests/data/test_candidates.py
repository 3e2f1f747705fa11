# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/candidates.py."""

import dataclasses

import numpy as np
import pytest

from realm_jax.config import LengthConfig, RetrievalConfig, RunConfig
from realm_jax.data import batches, candidates, collate, pretrain
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.tokenize import train_tokenizer

_RUN = RunConfig(
  batch_size=8,
  lengths=LengthConfig(query=24, passage=48, joint=72, masks=4),
  retrieval=RetrievalConfig(num_candidates=4),
)


@pytest.fixture(scope="module")
def dataset(tiny_corpus, tiny_tokenizer):
  return pretrain.masked_queries(
    _RUN, tiny_tokenizer, tiny_corpus, "", train=True
  )


def _make(corpus, tokenizer, dataset, run=_RUN, **process):
  lengths = batches.sample_lengths(dataset, "query", 32)
  return candidates.RealmCollator(
    run, corpus, tokenizer, lengths, num_devices=4, **process
  )


def _draw(corpus, rng, source_rows, num_candidates=4):
  found = rng.integers(-1, len(corpus), size=(len(source_rows), 5))
  return candidates.choose_candidates(found, source_rows, num_candidates)


def test_own_passage_and_repetitions_are_left_out():
  found = candidates.choose_candidates(
    np.array([[5, 3, 5, 7, 9], [3, 3, 3, 3, 3], [1, 2, 3, 4, 5]]),
    np.array([3, 3, -1]),
    4,
  )
  assert found.rows.tolist() == [[5, 7, 9], [0, 0, 0], [1, 2, 3]]
  assert found.mask.tolist() == [[True] * 3, [False] * 3, [True] * 3]
  assert found.rows.dtype == np.int32


def test_missing_neighbours_are_masked():
  found = candidates.choose_candidates(
    np.array([[4, -1], [-1, -1]]), np.array([-1, -1]), 5
  )
  assert found.rows.tolist() == [[4, 0, 0, 0], [0, 0, 0, 0]]
  assert found.mask.sum() == 1


def test_choice_equals_a_loop_over_neighbours():
  rng = np.random.default_rng(0)
  neighbors = rng.integers(-1, 6, size=(200, 7))
  own = rng.integers(-1, 6, size=200)
  found = candidates.choose_candidates(neighbors, own, 5)
  for i in range(200):
    kept = []
    for row in neighbors[i].tolist():
      if row >= 0 and row != own[i] and row not in kept:
        kept.append(row)
    assert found.rows[i][found.mask[i]].tolist() == kept[:4]


def test_rows_are_query_by_query_with_the_null_document_first(
  tiny_corpus, tiny_tokenizer, dataset, unpacked
):
  make = _make(tiny_corpus, tiny_tokenizer, dataset)
  examples = next(batches.make_batches(dataset, 8))
  rng = np.random.default_rng(0)
  chosen = _draw(tiny_corpus, rng, examples["source_row"])
  batch = make(examples, chosen)
  null = np.full((8, 1), collate.NULL_ROW)
  rows = np.concatenate([null, chosen.rows], axis=1).reshape(-1)
  passages = collate.passage_rows(tiny_corpus, tiny_tokenizer, rows, 48)
  queries = {k: np.repeat(v, 4, axis=0) for k, v in examples["query"].items()}
  joints = collate.joint_rows(
    queries, tiny_corpus, tiny_tokenizer, rows, 72, with_title=False
  ).rows
  for found, expected in (
    (batch["passages"], passages),
    (batch["joints"], joints),
  ):
    for name in ("ids", "segments"):
      for i, row in enumerate(unpacked(found, name)):
        real = expected["mask"][i]
        np.testing.assert_array_equal(row, expected[name][i][real])
  assert batch["candidate_mask"][:, 0].all()
  np.testing.assert_array_equal(batch["candidate_mask"][:, 1:], chosen.mask)
  for name in ("positions", "targets", "target_mask"):
    np.testing.assert_array_equal(batch[name], examples[name])


def _shapes(batch):
  return tuple(batch[kind]["ids"].shape for kind in ("passages", "joints"))


def test_every_shape_is_announced_by_a_dummy(
  tiny_corpus, tiny_tokenizer, dataset
):
  make = _make(tiny_corpus, tiny_tokenizer, dataset)
  announced = [_shapes(batch) for batch in make.dummy_batches()]
  assert len(announced) == make.num_shapes
  rng = np.random.default_rng(0)
  drawn = batches.make_batches(dataset, 8)
  for _ in range(20):
    examples = next(drawn)
    batch = make(examples, _draw(tiny_corpus, rng, examples["source_row"]))
    assert _shapes(batch) in announced


def test_a_dummy_has_the_types_of_a_real_batch(
  tiny_corpus, tiny_tokenizer, dataset
):
  make = _make(tiny_corpus, tiny_tokenizer, dataset)
  examples = next(batches.make_batches(dataset, 8))
  rng = np.random.default_rng(0)
  real = make(examples, _draw(tiny_corpus, rng, examples["source_row"]))
  dummy = next(make.dummy_batches())

  def types(tree):
    if isinstance(tree, dict):
      return {name: types(value) for name, value in tree.items()}
    if isinstance(tree, tuple):
      return [types(value) for value in tree]
    return tree.dtype

  assert types(real) == types(dummy)


def test_processes_plan_the_same_shapes(tiny_corpus, tiny_tokenizer, dataset):
  first, second = (
    _make(
      tiny_corpus,
      tiny_tokenizer,
      dataset,
      process_index=index,
      process_count=2,
    )
    for index in range(2)
  )
  for left, right in zip(
    first.dummy_batches(), second.dummy_batches(), strict=True
  ):
    assert _shapes(left) == _shapes(right)
    assert left["query"]["ids"].shape == (4, 24)


def test_a_higher_rung_holds_the_same_rows(
  tiny_corpus, tiny_tokenizer, dataset, unpacked
):
  make = _make(tiny_corpus, tiny_tokenizer, dataset)
  examples = next(batches.make_batches(dataset, 8))
  rng = np.random.default_rng(0)
  chosen = _draw(tiny_corpus, rng, examples["source_row"])
  low = make(examples, chosen)["joints"]
  high = make.batch(examples, chosen, make.num_shapes - 1)["joints"]
  assert len(low["ids"]) < len(high["ids"])
  for left, right in zip(
    unpacked(low, "ids"), unpacked(high, "ids"), strict=True
  ):
    np.testing.assert_array_equal(left, right)


def test_titles_are_shown_to_the_reader_if_asked(
  tiny_corpus, tiny_tokenizer, dataset
):
  data = dataclasses.replace(_RUN.data, reader_sees_title=True)
  run = dataclasses.replace(_RUN, data=data)
  examples = next(batches.make_batches(dataset, 8))
  rng = np.random.default_rng(0)
  chosen = _draw(tiny_corpus, rng, examples["source_row"])
  plain, titled = (
    _make(tiny_corpus, tiny_tokenizer, dataset, run=each)(examples, chosen)
    for each in (_RUN, run)
  )

  def tokens(batch):
    return (batch["joints"]["mask"] > 0).sum()

  titles = tiny_corpus.title_lengths[chosen.rows].sum() + chosen.rows.size
  assert tokens(titled) == tokens(plain) + titles


@pytest.mark.parametrize("title", ["", "Kodia"])
def test_shapes_planned_for_short_passages_hold_the_longest_there_may_be(
  tmp_path, tiny_tokenizer, dataset, unpacked, title
):
  def build(name, text):
    documents = [Document(title=title, text=text, uid="a")]
    return build_corpus(documents, tiny_tokenizer, tmp_path / name, 48)

  short, long = build("short", "Free."), build("long", "free " * 60)
  data = dataclasses.replace(_RUN.data, reader_sees_title=bool(title))
  run = dataclasses.replace(_RUN, data=data)
  planned = _make(short, tiny_tokenizer, dataset, run=run)
  examples = next(batches.make_batches(dataset, 8))
  words = np.full(22, long.body_ids(0)[0])  # With two special tokens 24.
  examples["query"] = collate.query_rows([words] * 8, tiny_tokenizer, 24)
  chosen = candidates.Candidates(
    np.zeros((8, 3), np.int32), np.ones((8, 3), bool)
  )
  batch = planned.over(long)(examples, chosen)
  assert max(map(len, unpacked(batch["passages"], "ids"))) == 48
  query, special = 24, 2 if title else 1
  assert max(map(len, unpacked(batch["joints"], "ids"))) == (
    query + long.lengths[0] + special
  )
  # The one that it was made of is as it was.
  batch = planned(examples, chosen)
  assert max(map(len, unpacked(batch["passages"], "ids"))) < 48


def test_another_tokenizer_is_refused(tmp_path, tiny_corpus, dataset):
  other = train_tokenizer(["Some other text."] * 3, 100, tmp_path)
  with pytest.raises(ValueError, match="was made with the tokenizer"):
    _make(tiny_corpus, other, dataset)
