# SPDX-License-Identifier: Apache-2.0
"""Questions to answers with evidence: find passages, read them (ORQA 4-5)."""

from collections.abc import Iterable, Iterator, Sequence
import logging
from typing import Protocol, runtime_checkable

from etils import epath
from rich.console import Console
from rich.text import Text

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.eval.closed_book import ClosedBookAnswerer
from realm_jax.eval.finders import Finder, Kind, open_finder
from realm_jax.eval.predictions import AnsweredQuestion
from realm_jax.eval.reader import PassageReader
from realm_jax.eval.retrieval import search_depth
from realm_jax.index.search import Neighbors

_log = logging.getLogger(__name__)


@runtime_checkable
class Answerer(Protocol):
  """Questions to answers."""

  def answer(self, questions: Sequence[str]) -> list[AnsweredQuestion]:
    """Returns distinct answers to each question, likeliest first."""
    ...

  def converse(self, questions: Iterable[str]) -> Iterator[AnsweredQuestion]:
    """Answers one question after another, as they come."""
    ...


def open_answerer(
  workdir: epath.PathLike, *, corpus: str = "", read: int = 0
) -> Answerer:
  """Opens what answers questions for a run; see `QuestionAnswerer.open`.

  Raises:
    FileNotFoundError, ValueError: as the kind that it is raises.
  """
  is_closed_book = workdirs.load(workdir).is_closed_book
  kind = ClosedBookAnswerer if is_closed_book else QuestionAnswerer
  return kind.open(workdir, corpus=corpus, read=read)


class QuestionAnswerer:
  """A fine-tuned run: what finds passages for it, and its reader."""

  def __init__(self, finder: Finder, reader: PassageReader) -> None:
    """Takes what `open` opens."""
    self._finder, self._reader = finder, reader

  @classmethod
  def open(
    cls,
    workdir: epath.PathLike,
    *,
    corpus: str = "",
    step: int = 0,
    read: int = 0,
    retriever: Kind = "",
  ) -> "QuestionAnswerer":
    """Opens a checkpoint and the newest index.

    Args:
      workdir: of an openqa run.
      corpus: directory of a corpus to search, whatever the run moves to.
      step: of the checkpoint; 0 for the newest.
      read: passages to read for each question; 0 for openqa.read.
      retriever: what finds passages; "" for the run's own.

    Raises:
      FileNotFoundError: no config, checkpoint, corpus or index.
      ValueError: the run is of another stage, or things do not fit together.
    """
    run = workdirs.load(workdir)
    if run.stage != "openqa":
      raise ValueError(
        f"{workdir} is a run of stage '{run.stage}': it has no span reader to "
        "answer questions with. Fine-tune it first (stage 'openqa', with "
        "init.retriever and init.encoder set to this workdir) and ask that."
      )
    step = step or checkpoints.newest_step(workdir)
    tokenizer = load_tokenizer(run.data.tokenizer)
    finder = open_finder(
      workdir, run, tokenizer, corpus=corpus, step=step, kind=retriever
    )
    reader = PassageReader(
      run,
      checkpoints.restore_params(workdir, step, "reader"),
      tokenizer,
      finder.corpus,
      read or run.openqa.read,
    )
    return cls(finder, reader)

  @property
  def num_read(self) -> int:
    """How many passages are read for each question."""
    return self._reader.num_read

  @property
  def index_version(self) -> str:
    """The name of the index that is searched."""
    return self._finder.version

  @property
  def corpus(self) -> PassageCorpus:
    """The corpus that is searched."""
    return self._finder.corpus

  def answer(self, questions: Sequence[str]) -> list[AnsweredQuestion]:
    """Returns distinct answers to each question, likeliest first."""
    return self.read(questions, self.find(questions))

  def converse(self, questions: Iterable[str]) -> Iterator[AnsweredQuestion]:
    """Answers one question after another, always with the newest index.

    That may be over another corpus, to which the run has moved meanwhile.
    """
    for question in questions:
      if self._finder.take_newest():
        _log.info(
          "Searching %s in %s", self.index_version, self.corpus.directory
        )
      yield from self.answer([question])

  def find(self, questions: Sequence[str]) -> Neighbors:
    """Returns passages for each question, enough for recall and to be read."""
    depth = max(self.num_read, search_depth(self.corpus))
    return self._finder.find(questions, depth)

  def read(
    self, questions: Sequence[str], found: Neighbors
  ) -> list[AnsweredQuestion]:
    """Reads the first of the passages found for each question."""
    return self._reader.read(questions, found, self.corpus)


def show(answered: AnsweredQuestion, console: Console | None = None) -> None:
  """Prints a question's answers, each with its best evidence."""
  # Text objects: what stands in brackets in a passage is no markup.
  lines = [Text(answered.question, style="bold")]
  if not answered.answers:
    lines.append(Text("  no answer"))
  for place, answer in enumerate(answered.answers, start=1):
    lines.append(
      Text.assemble(
        f"\n  {place}. ",
        (answer.text, "bold green"),
        f"   probability {answer.probability:.3f}, score {answer.score:.2f}",
      )
    )
    lines += [
      Text.assemble(
        f"     {evidence.title} [{evidence.uid}], "
        f"p(z|x) {evidence.retrieval_prob:.3f}: ",
        (evidence.text[: evidence.start], "dim"),
        (evidence.text[evidence.start : evidence.end], "bold"),
        (evidence.text[evidence.end :], "dim"),
      )
      for evidence in answer.evidence[:1]  # Closed book, there is none.
    ]
  (console or Console()).print(*lines, sep="\n")
