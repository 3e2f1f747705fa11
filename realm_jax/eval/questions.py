# SPDX-License-Identifier: Apache-2.0
"""Questions scored: the passages that a run finds, and the answers it gives.

A run without a span reader (ict, dpr, realm) is scored by its retriever alone;
one that answers closed book, by its answers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
from typing import Any, Literal

from rich.progress import track

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.eval import retrieval
from realm_jax.eval.closed_book import ClosedBookAnswerer
from realm_jax.eval.figures import summarise
from realm_jax.eval.finders import Finder, Kind, open_finder
from realm_jax.eval.open_qa import QuestionAnswerer
from realm_jax.eval.predictions import (
  AnsweredQuestion,
  QuestionPrediction,
  RetrievalPrediction,
)
from realm_jax.eval.question_scores import (
  Asked,
  Found,
  first_questions,
  list_found,
  score_answers,
  score_reading,
)
from realm_jax.eval.reader import PassageReader
from realm_jax.index.corpora import open_corpora
from realm_jax.index.search import Neighbors

Choice = Kind | Literal["gold"]
GOLD: Literal["gold"] = "gold"  # The passages that questions name, not found.
_AT_ONCE = 64  # Questions read between two moves of the progress bar.


def evaluate_questions(
  workdir: str,
  source: str,
  *,
  corpus: str,
  step: int,
  limit: int,
  retriever: Choice = "",
  read: int = 0,
) -> tuple[
  dict[str, Any], Iterable[QuestionPrediction] | Iterable[RetrievalPrediction]
]:
  """Returns figures, and what was answered or, without a reader, found.

  Args:
    workdir: of a run with a retriever.
    source: of questions, as `Questions` takes it.
    corpus: as `evaluate` takes it.
    step: as `evaluate` takes it.
    limit: as `evaluate` takes it.
    retriever: as `evaluate` takes it.
    read: as `evaluate` takes it.

  Raises:
    ValueError: a malformed line, a passage that is not in the corpus, a run
      without a retriever, or a choice that has no meaning for the run.
  """
  run = workdirs.load(workdir)
  if run.stage == "mlm":
    raise ValueError(
      f"{workdir} is a run of stage 'mlm', which has no retriever to find "
      "passages for questions: give --texts."
    )
  if run.stage != "openqa":
    finder = _open_finder(workdir, run, corpus, retriever)
    return _find(finder, Questions(source), limit, read or run.openqa.read)
  questions = Questions(source)
  step = step or checkpoints.newest_step(workdir)
  if run.is_closed_book:
    closed_book = ClosedBookAnswerer.open(
      workdir, corpus=corpus, step=step, read=read, retriever=retriever
    )
    figures, predictions = _answer(
      closed_book, first_questions(questions, limit)
    )
  elif retriever == GOLD:
    if read:
      raise ValueError(
        f"--retriever={GOLD} has the reader read every passage that a question "
        f"names: leave out --read={read}."
      )
    figures, predictions = _read_gold(
      workdir, run, questions, corpus=corpus, step=step, limit=limit
    )
  else:
    answerer = QuestionAnswerer.open(
      workdir, corpus=corpus, step=step, read=read, retriever=retriever
    )
    asked = Asked.read(questions, answerer.corpus, limit)
    figures, predictions = _find_and_read(answerer, asked)
  return {"step": step, **figures}, predictions


def _open_finder(
  workdir: str, run: RunConfig, corpus: str, retriever: Choice
) -> Finder:
  if retriever == GOLD:
    raise ValueError(
      f"{workdir} is a run of stage {run.stage!r}, which has no reader: "
      f"--retriever={GOLD} gives one the passages that questions name."
    )
  tokenizer = load_tokenizer(run.data.tokenizer)
  return open_finder(workdir, run, tokenizer, corpus=corpus, kind=retriever)


def _find(
  finder: Finder, questions: Questions, limit: int, num_listed: int
) -> tuple[dict[str, Any], Iterator[RetrievalPrediction]]:
  corpus = finder.corpus
  asked = Asked.read(questions, corpus, limit)
  depth = max(retrieval.search_depth(corpus), min(num_listed, len(corpus)))
  found = finder.find(asked.texts, depth)
  hits = Found.look_up(asked, found.ids, corpus)
  return {
    # Nothing of the checkpoint itself was used.
    "step": finder.step,
    "corpus": str(corpus.directory),
    "index_version": finder.version,
    "num_examples": len(asked),
    **summarise(hits.columns(asked)),
  }, list_found(asked, found, hits, corpus, num_listed)


def _answer(
  answerer: ClosedBookAnswerer, questions: Sequence[Question]
) -> tuple[dict[str, Any], list[QuestionPrediction]]:
  answered: list[AnsweredQuestion] = []
  for here in _parts(len(questions), "Answering questions"):
    answered += answerer.answer([each.text for each in questions[here]])
  columns, predictions = score_answers(questions, answered)
  return {"num_examples": len(questions), **summarise(columns)}, predictions


def _find_and_read(
  answerer: QuestionAnswerer, asked: Asked
) -> tuple[dict[str, Any], list[QuestionPrediction]]:
  found = answerer.find(asked.texts)
  answered = _read(answerer.read, asked, found)
  hits = Found.look_up(asked, found.ids, answerer.corpus)
  columns, predictions = score_reading(asked, hits, answered, answerer.num_read)
  return {
    "corpus": str(answerer.corpus.directory),
    "index_version": answerer.index_version,
    "num_examples": len(asked),
    "num_read": answerer.num_read,
    **summarise({**columns, **hits.columns(asked)}),
  }, predictions


def _read_gold(
  workdir: str,
  run: RunConfig,
  questions: Questions,
  *,
  corpus: str,
  step: int,
  limit: int,
) -> tuple[dict[str, Any], list[QuestionPrediction]]:
  """Reads the passages that questions name, as if they had been found."""
  corpora = open_corpora(workdir, run, corpus)
  passages = corpora.open(corpora.moves()[-1])
  tokenizer = load_tokenizer(run.data.tokenizer)
  passages.check_tokenizer(tokenizer)
  asked = Asked.read(questions, passages, limit)
  found = asked.named_passages()
  reader = PassageReader(
    run,
    checkpoints.restore_params(workdir, step, "reader"),
    tokenizer,
    passages,
    num_read=found.ids.shape[1],
    usual_rows=found.ids.reshape(-1),
  )
  answered = _read(
    functools.partial(reader.read, corpus=passages), asked, found
  )
  hits = Found.look_up(asked, found.ids, passages)
  columns, predictions = score_reading(asked, hits, answered, reader.num_read)
  # Recall would tell nothing: no passage was searched for.
  return {
    "corpus": str(passages.directory),
    "index_version": GOLD,
    "num_examples": len(asked),
    "num_read": reader.num_read,
    **summarise(columns),
  }, predictions


def _read(
  read: Callable[[list[str], Neighbors], list[AnsweredQuestion]],
  asked: Asked,
  found: Neighbors,
) -> list[AnsweredQuestion]:
  answered: list[AnsweredQuestion] = []
  for here in _parts(len(asked), "Reading passages"):
    part = Neighbors(found.ids[here], found.scores[here])
    answered += read(asked.texts[here], part)
  return answered


def _parts(number: int, task: str) -> Iterator[slice]:
  """Yields stretches of `number` questions, and shows how far it is."""
  for start in track(range(0, number, _AT_ONCE), task):
    yield slice(start, start + _AT_ONCE)
