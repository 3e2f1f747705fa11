# SPDX-License-Identifier: Apache-2.0
"""What an evaluation writes, one JSON object a line, and the report reads."""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import gzip
import json
from typing import IO, Any

from etils import epath

# In a workdir: where they are written unless asked otherwise, and where the
# report looks for them.
PREDICTIONS = "evaluation.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """A passage, and what it does for a masked span.

  What needs a retriever is None in a run without one (mlm), and so is what
  needs an encoder (ict, dpr), or the null document (openqa).
  """

  uid: str  # "" for the null document.
  title: str
  text: str
  is_null: bool
  retrieval_prob: float | None = None  # p(z|x) over the query's candidates.
  answer_prob: float | None = None  # p(y|z,x) of the whole true span.
  retrieval_utility: float | None = None  # log p(y|z,x) - log p(y|null,x).
  prediction: str | None = None  # The likeliest span beside it alone.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanPrediction:
  """A text with one masked span, filled in with and without passages.

  Or a question whose answer is the span. None stands for what the run's stage
  does not tell; see `Candidate`.
  """

  before: str  # The text before the span, ...
  answer: str
  after: str  # ... and after it.
  prediction: str | None = None
  right: bool | None = None  # Piece by piece; an answer, normalised.
  answer_prob: float | None = None  # p(y|x), the marginal over candidates.
  closed_book_prediction: str | None = None  # Beside the null document alone.
  closed_book_right: bool | None = None
  closed_book_answer_prob: float | None = None  # p(y|null,x)
  retrieval_utility: float | None = None  # log p(y|x) - log p(y|null,x), nats.
  passage_uid: str = ""  # The passage that holds the fact, "" if unknown.
  candidates: tuple[Candidate, ...] = ()


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
  """One distinct answer; its mentions are summed as the loss sums them.

  Closed book there is no evidence: the text is joined from pieces, and its
  probability is theirs together.
  """

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
  references: tuple[str, ...]  # Answer strings, or patterns.
  answers: tuple[Answer, ...]  # Likeliest first.
  exact_match: bool  # Of the first answer, as ORQA scores it.
  f1: float | None  # None where the references are patterns.
  regex_search: bool | None  # None where they are not.
  oracle_exact_match: bool  # Of the best of the answers.
  passage_uid: str  # What the question names, "" for nothing.
  answer_rank: int | None  # From 1, of the first passage holding an answer.
  passage_rank: int | None  # From 1, of what it names; `named_places`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundPassage:
  """A passage that was found for a question."""

  uid: str
  title: str
  text: str
  score: float  # The logit of p(z|x).
  holds_answer: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalPrediction:
  """A question, its references and what a retriever finds for it."""

  question: str
  references: tuple[str, ...]  # Answer strings, or patterns.
  passages: tuple[FoundPassage, ...]  # Best first.
  passage_uid: str  # As in `QuestionPrediction`, ...
  answer_rank: int | None  # ... and so are the ranks.
  passage_rank: int | None


def figures_path(predictions: epath.Path) -> epath.Path:
  """Returns where the figures of a file of predictions are: beside it."""
  name = epath.Path(predictions.name.removesuffix(".gz"))
  return predictions.with_name(f"{name.stem}.figures.json")


def write_evaluation(
  path: epath.Path,
  figures: dict[str, Any],
  predictions: Iterable[
    SpanPrediction | QuestionPrediction | RetrievalPrediction
  ],
) -> None:
  """Writes predictions, then the figures, which mark them complete.

  Those of a path that ends in .gz are compressed.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  figures_path(path).unlink(missing_ok=True)
  with _opened(path) as file:
    for prediction in predictions:
      record = dataclasses.asdict(prediction)
      file.write(json.dumps(record, ensure_ascii=False) + "\n")
  figures_path(path).write_text(json.dumps(figures, indent=2) + "\n")


@contextlib.contextmanager
def _opened(path: epath.Path) -> Iterator[IO[str]]:
  if path.suffix != ".gz":
    with path.open("w") as file:
      yield file
    return
  with path.open("wb") as raw, gzip.open(raw, "wt", encoding="utf-8") as file:
    yield file
