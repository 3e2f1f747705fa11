# SPDX-License-Identifier: Apache-2.0
"""What was asked, found and answered, and how good that is."""

from collections.abc import Iterator, Sequence
import dataclasses

from jaxtyping import Bool, Float, Int, Int32
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold import named_rows
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.eval import retrieval, scores
from realm_jax.eval.predictions import (
  AnsweredQuestion,
  FoundPassage,
  QuestionPrediction,
  RetrievalPrediction,
)
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
  named: list[range]  # Rows that each names; empty if it names none.

  @classmethod
  def read(
    cls, questions: Questions, corpus: PassageCorpus, limit: int
  ) -> "Asked":
    """Reads the first `limit` questions (0: all); see `named_rows`."""
    read = first_questions(questions, limit)
    named = [
      named_rows(question.passage_uid, corpus, questions.where(i))
      for i, question in enumerate(read)
    ]
    return cls(read, named)

  def __len__(self) -> int:
    return len(self.questions)

  @property
  def texts(self) -> list[str]:
    """The questions as they are asked."""
    return [question.text for question in self.questions]

  def named_passages(self) -> Neighbors:
    """Returns the passages that each question names, all alike to p(z|x).

    Of a document that was cut, those are all its parts: which of them hold an
    answer, a reader is not told. A question that names none has none, as if
    nothing had been found.

    Raises:
      ValueError: no question names one.
    """
    most = max(len(rows) for rows in self.named)
    if not most:
      raise ValueError(
        f"None of {len(self)} questions names its passage: give 'passage_uid'."
      )
    ids = np.full((len(self), most), NO_PASSAGE, np.int32)
    for line, rows in zip(ids, self.named, strict=True):
      line[: len(rows)] = rows
    scores = np.where(ids == NO_PASSAGE, -np.inf, 0.0).astype(np.float32)
    return Neighbors(ids, scores)


@dataclasses.dataclass(frozen=True)
class Found:
  """Where what was asked for is among the passages found, best first."""

  by_answer: Bool[np.ndarray, "n k"]  # Whether each holds an answer.
  passage_places: Int[np.ndarray, " n"]  # See `retrieval.named_places`.

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
      retrieval.named_places(neighbor_ids, asked.named, corpus),
    )

  @property
  def depth(self) -> int:
    """How many passages were searched for: k."""
    return self.by_answer.shape[1]

  @property
  def answer_ranks(self) -> list[int | None]:
    """Of the first passage that holds an answer, from 1; None for none."""
    return _ranks(self.answer_places, self.depth)

  @property
  def passage_ranks(self) -> list[int | None]:
    """Of what each question names, from 1; None if it was not found."""
    return _ranks(self.passage_places, self.depth)

  @property
  def answer_places(self) -> Int[np.ndarray, " n"]:
    """Of the first passage that holds an answer, from 0; k for none."""
    return retrieval.first_hits(self.by_answer)

  def columns(self, asked: Asked) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns recall by question, as `recall_columns` does."""
    has_gold = np.array([len(rows) > 0 for rows in asked.named])
    return retrieval.recall_columns(
      self.answer_places, self.passage_places, has_gold, self.depth
    )


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
      found.answer_ranks,
      found.passage_ranks,
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


def list_found(
  asked: Asked,
  neighbors: Neighbors,
  found: Found,
  corpus: PassageCorpus,
  number: int,
) -> Iterator[RetrievalPrediction]:
  """Yields a line for each question, with the first passages found for it.

  Args:
    asked: n questions.
    neighbors: ids and scores [n, k].
    found: what they are worth.
    corpus: of the passages, read as lines are asked for.
    number: of passages to list for each question.
  """
  for question, ids, logits, hits, answer_rank, passage_rank in zip(
    asked.questions,
    neighbors.ids[:, :number],
    neighbors.scores[:, :number].tolist(),
    found.by_answer[:, :number].tolist(),
    found.answer_ranks,
    found.passage_ranks,
    strict=True,
  ):
    passages = corpus.passages(ids[ids != NO_PASSAGE])
    yield RetrievalPrediction(
      question=question.text,
      references=question.answers + question.patterns,
      passages=tuple(
        FoundPassage(
          uid=passage.uid,
          title=passage.title,
          text=passage.text,
          score=logit,
          holds_answer=holds,
        )
        # What was not found comes last.
        for passage, logit, holds in zip(passages, logits, hits, strict=False)
      ),
      passage_uid=question.passage_uid,
      answer_rank=answer_rank,
      passage_rank=passage_rank,
    )


def _columns(predictions: Sequence[QuestionPrediction], *names: str) -> Columns:
  """Returns fields of the predictions; NaN for None."""
  return {
    name: np.array([getattr(each, name) for each in predictions], np.float64)
    for name in names
  }


def _ranks(places: Int[np.ndarray, " n"], depth: int) -> list[int | None]:
  return [at + 1 if at < depth else None for at in places.tolist()]


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
    passage_uid=question.passage_uid,
    answer_rank=answer_rank,
    passage_rank=passage_rank,
  )
