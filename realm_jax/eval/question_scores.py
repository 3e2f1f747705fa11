# SPDX-License-Identifier: Apache-2.0
"""What was asked, found and answered, and how good that is."""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Bool, Float, Int32
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold import gold_passages
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.eval import retrieval, scores
from realm_jax.eval.predictions import AnsweredQuestion, QuestionPrediction
from realm_jax.index.search import NO_PASSAGE, Neighbors

Columns = dict[str, Float[np.ndarray, " n"]]  # A figure of each question.


def first_questions(questions: Questions, limit: int) -> list[Question]:
  """Reads the first `limit` questions; 0 for all."""
  number = min(limit or len(questions), len(questions))
  return [questions[i] for i in range(number)]


@dataclasses.dataclass(frozen=True)
class Asked:
  """The questions of an evaluation."""

  questions: list[Question]
  gold_rows: list[Int32[np.ndarray, "_"]]  # Of each; empty if it names none.

  @classmethod
  def read(
    cls, questions: Questions, corpus: PassageCorpus, limit: int
  ) -> "Asked":
    """Reads the first `limit` questions (0: all); see `gold_passages`."""
    read = first_questions(questions, limit)
    gold_rows = [
      gold_passages(question, corpus, questions.where(i))
      for i, question in enumerate(read)
    ]
    return cls(read, gold_rows)

  def __len__(self) -> int:
    return len(self.questions)

  @property
  def texts(self) -> list[str]:
    """The questions as they are asked."""
    return [question.text for question in self.questions]

  def named_passages(self) -> Neighbors:
    """Returns the passages that each question names, all alike to p(z|x).

    A question that names none has none, as if nothing had been found.

    Raises:
      ValueError: no question names one.
    """
    most = max(len(rows) for rows in self.gold_rows)
    if not most:
      raise ValueError(
        f"None of {len(self)} questions names its passage: give 'passage_uid'."
      )
    ids = np.full((len(self), most), NO_PASSAGE, np.int32)
    for line, rows in zip(ids, self.gold_rows, strict=True):
      line[: len(rows)] = rows
    scores = np.where(ids == NO_PASSAGE, -np.inf, 0.0).astype(np.float32)
    return Neighbors(ids, scores)


@dataclasses.dataclass(frozen=True)
class Found:
  """Which of the passages found are what was asked for, best first."""

  by_answer: Bool[np.ndarray, "n k"]
  by_passage: Bool[np.ndarray, "n k"]

  @classmethod
  def look_up(
    cls,
    asked: Asked,
    neighbor_ids: Int32[np.ndarray, "n k"],
    corpus: PassageCorpus,
  ) -> "Found":
    """Reads the passages of n questions."""
    return cls(
      retrieval.answer_hits(neighbor_ids, corpus, asked.questions),
      retrieval.passage_hits(neighbor_ids, asked.gold_rows),
    )

  def columns(self, asked: Asked) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns recall by question, as `recall_columns` does."""
    has_gold = np.array([len(rows) > 0 for rows in asked.gold_rows])
    return retrieval.recall_columns(self.by_answer, self.by_passage, has_gold)


def score_answers(
  questions: Sequence[Question], answered: Sequence[AnsweredQuestion]
) -> tuple[Columns, list[QuestionPrediction]]:
  """Returns the figures of answers without evidence, and their lines."""
  pairs = zip(questions, answered, strict=True)
  predictions = [_prediction(*pair, None, None) for pair in pairs]
  return _columns(predictions, "exact_match", "f1", "regex_search"), predictions


def score_reading(
  asked: Asked,
  found: Found,
  answered: Sequence[AnsweredQuestion],
  num_read: int,
) -> tuple[Columns, list[QuestionPrediction]]:
  """Returns the figures of answers that were read, and their lines.

  Args:
    asked: n questions.
    found: the passages found for each; the first `num_read` were read.
    answered: the questions with their answers.
    num_read: R.
  """
  predictions = [
    _prediction(*one)
    for one in zip(
      asked.questions,
      answered,
      _ranks(found.by_answer),
      _ranks(found.by_passage),
      strict=True,
    )
  ]
  readable = np.any(found.by_answer[:, :num_read], axis=1)
  return {
    **_columns(
      predictions, "exact_match", "f1", "regex_search", "oracle_exact_match"
    ),
    "reader_oracle": np.asarray(readable, np.float64),
  }, predictions


def _columns(predictions: Sequence[QuestionPrediction], *names: str) -> Columns:
  """Returns fields of the predictions; NaN for None."""
  return {
    name: np.array([getattr(each, name) for each in predictions], np.float64)
    for name in names
  }


def _ranks(hits: Bool[np.ndarray, "n k"]) -> list[int | None]:
  firsts = retrieval.first_hits(hits).tolist()
  return [first + 1 if first < hits.shape[1] else None for first in firsts]


def _prediction(
  question: Question,
  answered: AnsweredQuestion,
  answer_rank: int | None,
  passage_rank: int | None,
) -> QuestionPrediction:
  texts = [answer.text for answer in answered.answers]
  best = texts[0] if texts else ""
  has_patterns = bool(question.patterns)
  return QuestionPrediction(
    question=question.text,
    references=question.answers + question.patterns,
    answers=answered.answers,
    exact_match=scores.is_right(best, question),
    f1=None if has_patterns else scores.token_f1(best, question.answers),
    regex_search=scores.holds_pattern(best, question) if has_patterns else None,
    oracle_exact_match=any(scores.is_right(t, question) for t in texts or [""]),
    answer_rank=answer_rank,
    passage_rank=passage_rank,
  )
