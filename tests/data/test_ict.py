# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/ict.py."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from realm_jax.config import DataConfig, IctConfig, LengthConfig, RunConfig
from realm_jax.data import collate, ict
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document

_RUN = RunConfig(lengths=LengthConfig(query=24, passage=48, joint=72, masks=4))
_COUNT = 40


def _pairs(tokenizer, corpus, run=_RUN, *, removal_rate=0.9):
  run = dataclasses.replace(run, ict=IctConfig(removal_rate=removal_rate))
  rows = ict.ict_rows(run, tokenizer, corpus)
  return [rows[index] for index in range(_COUNT)]


def _pieces(row):
  return row["ids"][row["mask"]].tolist()


def _expected(corpus, tokenizer, *, removed):
  """Every (query, passage) there may be, as lists of pieces."""
  found = []
  for row in range(len(corpus)):
    body, title = corpus.body_ids(row), corpus.title_ids(row)
    bounds = [*corpus.sentence_starts(row), len(body)]
    for start, stop in itertools.pairwise(bounds):
      rest = np.concatenate([body[:start], body[stop:]]) if removed else body
      query = collate.query_row(body[start:stop], tokenizer, 24)
      passage = collate.passage_row(title, rest, tokenizer, 48)
      found.append((_pieces(query), _pieces(passage)))
  return found


@pytest.mark.parametrize("removed", [False, True])
def test_a_query_is_a_sentence_and_its_passage_may_lose_it(
  tiny_corpus, tiny_tokenizer, removed
):
  pairs = _pairs(tiny_tokenizer, tiny_corpus, removal_rate=float(removed))
  expected = _expected(tiny_corpus, tiny_tokenizer, removed=removed)
  for pair in pairs:
    found = (_pieces(pair["query"]), _pieces(pair["passage"]))
    assert found in expected


def test_sentences_are_removed_at_their_rate(tiny_corpus, tiny_tokenizer):
  run = dataclasses.replace(_RUN, ict=IctConfig(removal_rate=0.75))
  rows = ict.ict_rows(run, tiny_tokenizer, tiny_corpus)
  whole = _expected(tiny_corpus, tiny_tokenizer, removed=False)
  removed = [
    (_pieces(rows[i]["query"]), _pieces(rows[i]["passage"])) not in whole
    for i in range(400)
  ]
  # Four standard errors of a binomial share.
  assert abs(np.mean(removed) - 0.75) < 4 * (0.75 * 0.25 / 400) ** 0.5


def test_an_epoch_has_each_passage_of_two_sentences_once(
  tmp_path, tiny_tokenizer
):
  documents = [
    Document(title="Mudia", text=f"It fell by {i}%. {more}", uid=str(i))
    for i, more in enumerate(["", "It rose.", "", "It rose.", "It rose."])
  ]
  corpus = build_corpus(documents, tiny_tokenizer, tmp_path / "c", 48)
  rows = ict.ict_rows(
    dataclasses.replace(_RUN, ict=IctConfig(removal_rate=0.0)),
    tiny_tokenizer,
    corpus,
  )
  for epoch in range(2):
    bodies = sorted(
      _pieces(rows[index]["passage"])
      for index in range(3 * epoch, 3 * epoch + 3)
    )
    expected = sorted(
      _pieces(
        collate.passage_row(
          corpus.title_ids(row), corpus.body_ids(row), tiny_tokenizer, 48
        )
      )
      for row in (1, 3, 4)
    )
    assert bodies == expected


def test_passages_of_one_title_come_side_by_side(tmp_path, tiny_tokenizer):
  documents = [
    Document(title=f"Title {i // 4}", text=f"It fell by {i}%. So it did.")
    for i in range(12)
  ]
  corpus = build_corpus(documents, tiny_tokenizer, tmp_path / "c", 48)
  run = dataclasses.replace(_RUN, ict=IctConfig(same_title=4))
  rows = ict.ict_rows(run, tiny_tokenizer, corpus)
  titles = [corpus.title_ids(row).tolist() for row in (0, 4, 8)]
  passages = [_pieces(rows[i]["passage"])[1:] for i in range(24)]
  found = [
    next(n for n, title in enumerate(titles) if row[: len(title)] == title)
    for row in passages
  ]
  for epoch in (found[:12], found[12:]):
    runs = [len(list(group)) for _, group in itertools.groupby(epoch)]
    assert runs == [4, 4, 4]


def test_texts_are_not_ordered_by_title(tiny_corpus, tiny_tokenizer):
  run = dataclasses.replace(
    _RUN,
    data=DataConfig(train="texts.jsonl"),
    ict=IctConfig(same_title=2),
  )
  with pytest.raises(ValueError, match=r"same_title \(2\) orders the corpus'"):
    ict.ict_rows(run, tiny_tokenizer, tiny_corpus)


def test_a_corpus_of_single_sentences_is_refused(tmp_path, tiny_tokenizer):
  documents = [Document(title="Mudia", text="It fell.")]
  corpus = build_corpus(documents, tiny_tokenizer, tmp_path / "c", 48)
  with pytest.raises(ValueError, match=r"No passage of .* has two sentences"):
    ict.ict_rows(_RUN, tiny_tokenizer, corpus)


def _texts(tmp_path, **source):
  path = tmp_path / "texts.jsonl"
  text = {"text": "Bakodia is free.", "spans": [[0, 7]], **source}
  path.write_text(json.dumps(text))
  return dataclasses.replace(_RUN, data=DataConfig(train=str(path)))


def test_a_text_of_a_file_is_masked_and_paired_with_its_source(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  run = _texts(tmp_path, source_uid="country-5")
  t, row = tiny_tokenizer, tiny_corpus.row_of("country-5")

  pair = ict.ict_rows(run, t, tiny_corpus)[0]

  masks = [t.mask_id] * len(t.encode("Bakodia"))
  rest = t.encode(" is free.").ids.tolist()
  assert _pieces(pair["query"]) == [t.cls_id, *masks, *rest, t.sep_id]
  expected = collate.passage_row(
    tiny_corpus.title_ids(row), tiny_corpus.body_ids(row), t, 48
  )
  for name, value in expected.items():
    np.testing.assert_array_equal(pair["passage"][name], value)


def test_a_text_without_a_source_is_refused(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  rows = ict.ict_rows(_texts(tmp_path), tiny_tokenizer, tiny_corpus)
  with pytest.raises(ValueError, match=r"texts\.jsonl: .* no 'source_uid'"):
    rows[0]


def test_the_index_alone_decides_the_pair(tiny_corpus, tiny_tokenizer):
  once = ict.ict_rows(_RUN, tiny_tokenizer, tiny_corpus)
  again = ict.ict_rows(_RUN, tiny_tokenizer, tiny_corpus)
  again[3]
  assert _pieces(once[9]["query"]) == _pieces(again[9]["query"])
  assert _pieces(once[9]["passage"]) == _pieces(again[9]["passage"])
