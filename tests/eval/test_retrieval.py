# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.eval import retrieval


def test_recall_by_hand():
  hits = np.zeros((4, 20), bool)
  hits[0, 0] = hits[1, 4] = hits[2, 5] = True

  assert retrieval.recall_at(hits) == {1: 0.25, 5: 0.5, 20: 0.75}


def test_recall_leaves_out_depths_that_were_not_searched():
  assert list(retrieval.recall_at(np.ones((2, 7), bool))) == [1, 5]


def test_recall_never_falls_with_depth():
  hits = np.random.default_rng(0).random((50, 100)) < 0.02
  values = list(retrieval.recall_at(hits, range(1, 101)).values())
  assert values == sorted(values)
  assert values[-1] == hits.any(1).mean()


def test_recall_of_no_queries_is_an_error():
  with pytest.raises(ValueError, match="at least one query"):
    retrieval.recall_at(np.zeros((0, 5), bool))


def test_an_answer_counts_as_whole_words_only():
  assert retrieval.has_answer("The capital is Rome.", ["rome"])
  assert not retrieval.has_answer("The capital is Romeo.", ["Rome"])
  assert retrieval.has_answer("in N'Djamena, Chad", ["paris", "N'Djamena"])


def test_an_answer_that_normalises_to_nothing_is_in_no_passage():
  assert not retrieval.has_answer("the end", ["the", "!"])


def test_answers_are_looked_for_in_the_text_of_each_passage(corpus):
  chad, borders = (
    corpus.row_of(uid) for uid in ("Chad/capital", "Peru/borders")
  )
  found = np.array([[chad, borders], [borders, -1]], np.int32)
  hits = retrieval.answer_hits(found, corpus, [["ndjamena"], ["LIMA", "x"]])
  assert hits.tolist() == [[True, False], [True, False]]


def test_recall_by_passage_is_left_out_where_a_query_names_none(corpus):
  rows = np.arange(10, dtype=np.int32)[None].repeat(2, axis=0)
  answers = [["Rome"], ["nowhere"]]

  figures = retrieval.recall_figures(rows, corpus, answers, [0, 7])
  assert figures["passage_recall_at_1"] == 0.5
  assert figures["passage_recall_at_5"] == 0.5
  assert figures["answer_recall_at_5"] == 0.5

  figures = retrieval.recall_figures(rows, corpus, answers, [0, None])
  assert list(figures) == ["answer_recall_at_1", "answer_recall_at_5"]
