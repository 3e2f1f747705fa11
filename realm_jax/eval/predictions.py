# SPDX-License-Identifier: Apache-2.0
"""What an evaluation writes, one JSON object a line, and the report reads."""

from collections.abc import Iterable
import dataclasses
import json
from typing import Any

from etils import epath

PREDICTIONS = "predictions.jsonl"
FIGURES = "figures.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """A passage beside which the encoder filled the masks."""

  uid: str  # "" for the null document.
  title: str
  text: str
  is_null: bool
  retrieval_prob: float  # p(z|x) over the query's candidates.
  answer_prob: float  # p(y|z,x) of the whole true span.
  prediction: str  # The likeliest span beside this passage alone.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanPrediction:
  """A text with one masked span, filled in with and without passages."""

  before: str  # The text before the span, ...
  answer: str
  after: str  # ... and after it.
  prediction: str
  right: bool  # Equal to the answer, piece by piece.
  closed_book_prediction: str  # Beside the null document alone.
  closed_book_right: bool
  retrieval_utility: float | None  # Nats a span; None without a retriever.
  passage_uid: str  # The passage that holds the fact, "" if unknown.
  candidates: tuple[Candidate, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
  """A passage that an answer was read in."""

  uid: str
  title: str
  text: str
  start: int  # Characters of `text` that are the answer, ...
  end: int  # ... end excluded.
  retrieval_prob: float  # p(z|x) over the passages that were searched.
  span_score: float  # The reader's score plus the retriever's.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
  """One distinct answer; its mentions are summed as the loss sums them."""

  text: str  # In the characters of its best evidence.
  score: float  # log of the sum of exp(span_score) over its mentions.
  probability: float  # That sum over the sum of all spans of all passages.
  evidence: tuple[Evidence, ...]  # Best mention first.


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
  """A question and its answers, likeliest first."""

  question: str
  answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionPrediction:
  """A question, its references and what the model answers."""

  question: str
  references: tuple[str, ...]
  answers: tuple[Answer, ...]  # Likeliest first.
  exact_match: bool
  f1: float


def write_evaluation(
  directory: epath.Path,
  figures: dict[str, Any],
  predictions: Iterable[SpanPrediction | QuestionPrediction],
) -> None:
  """Writes predictions.jsonl, then figures.json, which marks them complete."""
  directory.mkdir(parents=True, exist_ok=True)
  (directory / FIGURES).unlink(missing_ok=True)
  with (directory / PREDICTIONS).open("w") as file:
    for prediction in predictions:
      record = dataclasses.asdict(prediction)
      file.write(json.dumps(record, ensure_ascii=False) + "\n")
  (directory / FIGURES).write_text(json.dumps(figures, indent=2) + "\n")
