# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.data.records import Question
from realm_jax.eval.figures import summarise
from realm_jax.eval.predictions import Answer, AnsweredQuestion
from realm_jax.eval.question_scores import (
  Asked,
  Found,
  list_found,
  score_answers,
  score_reading,
)
from realm_jax.index.search import NO_PASSAGE, Neighbors


def _answered(*texts):
  answers = tuple(
    Answer(text=text, score=0.0, probability=0.1, evidence=()) for text in texts
  )
  return AnsweredQuestion(question="?", answers=answers)


def _one(row):
  return range(row, row + 1)


def test_figures_and_lines_by_hand(corpus):
  italy, peru, chad = (
    corpus.row_of(f"{name}/capital") for name in ("Italy", "Peru", "Chad")
  )
  asked = Asked(
    [
      Question(text="1", answers=("Rome",)),
      Question(text="2", answers=("the City of Lima", "none")),
      Question(text="3", patterns=("N.Djamena",)),
      Question(text="4", answers=("Oslo",)),
    ],
    [_one(italy), _one(peru), range(0), _one(chad)],
  )
  ids = np.array([[italy, peru, chad]] * 4, np.int32)
  found = Found.look_up(asked, ids, corpus)
  columns, lines = score_reading(
    asked,
    found,
    [
      _answered("Rome!"),
      _answered("Rome", "Lima", "city of Lima"),
      _answered("in N'Djamena"),
      _answered(),
    ],
    num_read=2,
  )
  assert [line.exact_match for line in lines] == [True, False, False, False]
  assert [line.oracle_exact_match for line in lines] == [1, 1, 0, 0]
  assert [line.regex_search for line in lines] == [None, None, True, None]
  assert [line.f1 for line in lines] == [1.0, 0.0, None, 0.0]
  assert [line.answer_rank for line in lines] == [1, None, 3, None]
  assert [line.passage_rank for line in lines] == [1, 2, None, 3]
  assert lines[2].references == ("N.Djamena",)
  figures = summarise({**columns, **found.columns(asked)})
  intervals = figures.pop("intervals")
  assert figures == {
    "exact_match": 0.25,
    "f1": pytest.approx(1 / 3),  # Of the three that have strings.
    "regex_search": 1.0,  # Of the one that has patterns.
    "oracle_exact_match": 0.5,
    "reader_oracle": 0.25,  # Two passages of three were read.
    "answer_recall_at_1": 0.25,
    "passage_recall_at_1": pytest.approx(1 / 3),  # Of the three that name one.
  }
  assert intervals.keys() == figures.keys()


def test_places_without_a_passage_are_not_listed(corpus):
  italy, peru = (corpus.row_of(f"{name}/capital") for name in ("Italy", "Peru"))
  question = Question(text="1", answers=("Rome",), patterns=("R.me",))
  asked = Asked([question], [range(0)])
  neighbors = Neighbors(
    np.array([[peru, italy, NO_PASSAGE]], np.int32),
    np.array([[2.0, 1.5, -np.inf]], np.float32),
  )
  found = Found.look_up(asked, neighbors.ids, corpus)
  (line,) = list_found(asked, neighbors, found, corpus, 3)
  assert [passage.uid for passage in line.passages] == [
    "Peru/capital",
    "Italy/capital",
  ]
  assert [passage.score for passage in line.passages] == [2.0, 1.5]
  assert [passage.holds_answer for passage in line.passages] == [False, True]
  assert line.references == ("Rome", "R.me")
  assert (line.answer_rank, line.passage_rank) == (2, None)


def test_answers_alone_are_scored_without_passages():
  asked = [
    Question(text="1", answers=("Rome",)),
    Question(text="2", patterns=("N.Djamena",)),
  ]
  columns, lines = score_answers(asked, [_answered("rome"), _answered()])
  assert {name: column.tolist() for name, column in columns.items()} == {
    "exact_match": [1.0, 0.0],
    "f1": [1.0, pytest.approx(np.nan, nan_ok=True)],
    "regex_search": [pytest.approx(np.nan, nan_ok=True), 0.0],
  }
  assert [line.answer_rank for line in lines] == [None, None]


def test_named_passages_are_all_alike_and_a_question_may_name_none():
  asked = Asked([Question(text="?")] * 3, [_one(5), range(0), range(2, 5)])
  found = asked.named_passages()
  none = NO_PASSAGE
  assert found.ids.tolist() == [[5, none, none], [none] * 3, [2, 3, 4]]
  assert found.scores.tolist() == [
    [0, -np.inf, -np.inf],
    [-np.inf] * 3,
    [0, 0, 0],
  ]


def test_questions_that_all_name_no_passage_are_refused():
  asked = Asked([Question(text="?")] * 3, [range(0)] * 3)
  with pytest.raises(ValueError, match="None of 3 questions names its passage"):
    asked.named_passages()
