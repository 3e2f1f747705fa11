# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest

from realm_jax.data import collate, gold_spans
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document, Question
from realm_jax.data.tokenize import Encoding


def test_occurrences_are_all_places_even_overlapping_ones():
  pieces = np.array([1, 2, 1, 2, 1], np.int32)
  assert gold_spans.occurrences(pieces, pieces[:3]).tolist() == [0, 2]
  assert gold_spans.occurrences(pieces[:2], pieces[:3]).size == 0
  assert gold_spans.occurrences(pieces, pieces[:0]).size == 0


def test_pieces_cover_a_stretch_that_starts_where_one_does():
  # "the  end of1990": pieces the, end, of, ##1990
  encoding = Encoding(
    np.arange(4, dtype=np.int32),
    np.array([0, 5, 9, 11], np.int32),
    np.array([3, 8, 11, 15], np.int32),
  )

  def cover(*stretch):
    return list(gold_spans.covering_pieces(encoding, [stretch]))

  assert cover(0, 3) == [(0, 1)]
  assert cover(0, 8) == [(0, 2)]
  assert cover(3, 8) == [(1, 2)]  # The space before it is no part of a piece.
  assert cover(5, 10) == [(1, 3)]  # Of "of", all is taken.
  assert cover(11, 15) == [(3, 4)]
  assert cover(10, 15) == []  # Starts inside "of".
  assert cover(3, 5) == []
  assert cover(14, 15) == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_tokenizer):
  text = "The capital is Tedia. It fell by 7% on 12 May 1830."
  long = "Badia has 7319" + "50482716" * 8  # Cut inside of the number.
  documents = [
    Document(title="one", text=text),
    Document(title="long", text=long),
  ]
  folder = tmp_path_factory.mktemp("gold") / "corpus"
  return build_corpus(documents, tiny_tokenizer, folder, max_pieces=24)


def spelled(gold, joints, tokenizer):
  """Returns the text of each gold span, row by row."""
  found = []
  for row, start, width in np.argwhere(gold):
    ids = joints.rows["ids"][row, start : start + width + 1]
    found.append((int(row), tokenizer.decode(ids)))
  return found


def test_gold_spans_are_strings_by_pieces_and_patterns_by_characters(
  corpus, tiny_tokenizer
):
  questions = [
    Question(text="?", answers=("tedia",)),  # Pieces have no case.
    Question(text="?", patterns=(r"\d+ may \d+", "fell")),
    Question(text="?", patterns=("apital",)),  # Inside of a piece, or not.
    Question(text="?", answers=("7%",), patterns=("nowhere",)),
  ]
  rows = np.zeros(4, np.int32)
  queries = collate.query_rows(
    [tiny_tokenizer.encode("who").ids] * 4, tiny_tokenizer, 8
  )
  joints = collate.joint_rows(
    queries, corpus, tiny_tokenizer, rows, 40, with_title=False
  )
  gold = gold_spans.gold_spans(
    joints,
    [[tiny_tokenizer.encode(a).ids for a in q.answers] for q in questions],
    gold_spans.matched_spans(questions, corpus, tiny_tokenizer, rows),
    max_span=8,
  )
  assert gold.shape == (4, 40, 8)
  assert not (gold.any(axis=2) & ~joints.block_mask).any()
  squeezed = [
    (row, re.sub(r"\s", "", text))
    for row, text in spelled(gold, joints, tiny_tokenizer)
  ]
  expected = [(0, "tedia"), (1, "12may1830"), (1, "fell"), (3, "7%")]
  assert sorted(set(squeezed) - {(2, "apital")}) == expected


def test_a_passage_cut_inside_a_word_has_no_matched_spans(
  corpus, tiny_tokenizer
):
  texts = [corpus.passage(row).text for row in range(len(corpus))]
  whole = [
    np.array_equal(tiny_tokenizer.encode(text).ids, corpus.body_ids(row))
    for row, text in enumerate(texts)
  ]
  assert not all(whole)
  found = gold_spans.matched_spans(
    [Question(text="?", patterns=(r"\w+",))] * len(texts),
    corpus,
    tiny_tokenizer,
    np.arange(len(texts), dtype=np.int32),
  )
  assert [bool(spans) for spans in found] == whole


def test_what_a_row_cuts_off_or_is_too_wide_is_no_gold_span(
  corpus, tiny_tokenizer
):
  queries = collate.query_rows(
    [tiny_tokenizer.encode("who").ids], tiny_tokenizer, 8
  )
  rows = np.zeros(1, np.int32)
  joints = collate.joint_rows(
    queries, corpus, tiny_tokenizer, rows, 12, with_title=False
  )
  length = int(joints.body_lengths[0])
  spans = [[(0, 2), (0, 5), (length - 1, length), (length - 1, length + 1)]]
  gold = gold_spans.gold_spans(joints, [[]], spans, max_span=4)
  start = int(joints.body_starts[0])
  assert np.argwhere(gold[0]).tolist() == [
    [start, 1],
    [start + length - 1, 0],
  ]
