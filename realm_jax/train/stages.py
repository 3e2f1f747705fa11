# SPDX-License-Identifier: Apache-2.0
"""What each stage reads: its examples, and how they become batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import packing
from realm_jax.data.batches import sample_lengths
from realm_jax.data.candidates import RealmCollator, choose_candidates
from realm_jax.data.closed_book import closed_book_length, closed_book_rows
from realm_jax.data.collate import NULL_ROW
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.ict import ict_rows
from realm_jax.data.own_words import held_shares
from realm_jax.data.pairs import (
  PairCollator,
  all_rows,
  pair_packings,
  pair_rows,
  wrong_passages,
)
from realm_jax.data.pretrain import masked_queries
from realm_jax.data.qa import Questions
from realm_jax.data.reading import reading_rows
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.index.store import IndexVersion
from realm_jax.shapes import Batch
from realm_jax.train.inputs import Inputs
from realm_jax.train.probe import RecallProbe
from realm_jax.train.qa_stages import (
  Bm25QaStage,
  OpenQaStage,
  probe_of_questions,
)
from realm_jax.train.search import Searcher


@runtime_checkable
class Stage(Protocol):
  """A stage's data; `probe` is None where nothing is searched."""

  corpus: PassageCorpus
  probe: RecallProbe | None

  def batches(self) -> grain.DatasetIterator:
    """Returns an iterator over this process' examples, batch by batch."""
    ...

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    """Returns what the loss takes; threads call it."""
    ...

  def shapes(self) -> Iterable[Batch]:
    """Yields a batch of every shape that `prepare` returns."""
    ...


class _Ict:
  """Pseudo-queries and their passages."""

  def __init__(self, inputs: Inputs) -> None:
    self.corpus = inputs.corpus
    self.probe: RecallProbe | None = None
    self._inputs = inputs
    self._dataset = ict_rows(inputs.run, inputs.tokenizer, inputs.corpus)
    share = inputs.run.batch_size // jax.process_count()
    self._num_rows = dict.fromkeys(("query", "passage"), share)
    self._packings = pair_packings(
      inputs.run,
      {kind: sample_lengths(self._dataset, kind) for kind in self._num_rows},
      self._num_rows,
      inputs.corpus.max_pieces,
      num_devices=inputs.num_devices,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def batches(self) -> grain.DatasetIterator:
    return self._inputs.batches(self._dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    del index
    return self._packings.fit(examples)

  def shapes(self) -> Iterator[Batch]:
    yield from self._packings.shapes(self._num_rows)


class _Dpr:
  """Questions and their passages, and wrong ones that a version finds."""

  def __init__(self, inputs: Inputs) -> None:
    run = inputs.run
    self.corpus = inputs.corpus
    self.probe: RecallProbe | None = None
    self._inputs = inputs
    self._searcher = Searcher(run.embedder)
    self._questions = Questions(run.data.train)
    self._dataset = pair_rows(
      run, inputs.tokenizer, inputs.corpus, self._questions
    )
    self._collator = PairCollator(
      run,
      inputs.corpus,
      inputs.tokenizer,
      sample_lengths(self._dataset, "query"),
      num_devices=inputs.num_devices,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    if run.dpr.negatives:
      if run.dpr.search > len(inputs.corpus):
        raise ValueError(
          f"dpr.search ({run.dpr.search}) exceeds the corpus' "
          f"{len(inputs.corpus)} passages."
        )
      self.probe = probe_of_questions(inputs, self._searcher)

  def batches(self) -> grain.DatasetIterator:
    return self._inputs.batches(self._dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    own = examples["passage_row"]
    if index is None:
      nothing = np.zeros((len(own), 0), np.int32)
      return self._collator(examples, nothing, self.corpus)
    dpr = self._inputs.run.dpr
    queries = all_rows(examples["query"])
    found = self._searcher.search(queries, index, dpr.search)
    negatives = [
      wrong_passages(
        [self._questions[int(number)] for number in numbers],
        row,
        ids,
        index.corpus,
        dpr.negatives,
      )
      for numbers, row, ids in zip(
        examples["index"],
        self.corpus.rows_in(index.corpus, own).tolist(),
        found.ids.reshape(len(own), dpr.questions, -1),
        strict=True,
      )
    ]
    return self._collator(examples, np.stack(negatives), index.corpus)

  def shapes(self) -> Iterator[Batch]:
    yield from self._collator.shapes()


class _Filling:
  """Joint rows with masks to be filled, each beside what it is given."""

  def __init__(
    self, inputs: Inputs, dataset: grain.MapDataset, longest: int
  ) -> None:
    run = inputs.run
    self.corpus = inputs.corpus
    self.probe: RecallProbe | None = None
    self._inputs, self._dataset = inputs, dataset
    self._share = run.batch_size // jax.process_count()
    num_parts = run.optimizer.accumulate_steps
    lengths = sample_lengths(self._dataset, "joint")
    self._packing = packing.plan(
      packing.simulate(lengths, self._share // num_parts),
      longest,
      model_width=run.encoder.hidden_size,
      multiple=inputs.num_devices,
      process_count=jax.process_count(),
      num_parts=num_parts,
    )

  def batches(self) -> grain.DatasetIterator:
    return self._inputs.batches(self._dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    del index
    joint = self._packing.fit(examples["joint"], jax.process_index())
    return {**examples, "joint": joint}

  def shapes(self) -> Iterator[Batch]:
    first = self._inputs.stand_in(self._dataset)
    for joint in self._packing.shapes(self._share):
      yield {**first, "joint": joint}


def _reading(inputs: Inputs) -> _Filling:
  """Masked texts, each beside its own passage or the null document."""
  run = inputs.run
  rows = reading_rows(run, inputs.tokenizer, inputs.corpus)
  return _Filling(inputs, rows, run.lengths.joint)


def _closed_book(inputs: Inputs) -> _Filling:
  """Questions beside the null document, with masks for the answer."""
  run = inputs.run
  rows = closed_book_rows(run, inputs.tokenizer, Questions(run.data.train))
  return _Filling(inputs, rows, closed_book_length(run))


class _Realm:
  """Masked texts, each with the passages that its version retrieves."""

  def __init__(self, inputs: Inputs) -> None:
    run = inputs.run
    self.corpus = inputs.corpus
    self._inputs = inputs
    self._searcher = Searcher(run.embedder)
    self._dataset = masked_queries(
      run, inputs.tokenizer, inputs.corpus, run.data.train, train=True
    )
    self._collator = RealmCollator(
      run,
      inputs.corpus,
      inputs.tokenizer,
      sample_lengths(self._dataset, "query"),
      num_devices=inputs.num_devices,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    probed = masked_queries(
      run,
      inputs.tokenizer,
      inputs.corpus,
      run.data.validation or run.data.train,
      train=False,
    )
    self.probe: RecallProbe | None = RecallProbe(
      self._searcher,
      probed,
      inputs.corpus,
      held_out=bool(run.data.validation),
    )

  def batches(self) -> grain.DatasetIterator:
    return self._inputs.batches(self._dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    assert index is not None  # A stage with a probe is given one.
    retrieval = self._inputs.run.retrieval
    # K, not K - 1: one of them may be the text's own passage.
    num_found = retrieval.num_candidates
    if retrieval.exclude_overlap:
      num_found *= 2  # Several may hold its words.
    ids = self._searcher.search(examples["query"], index, num_found).ids
    if retrieval.exclude_overlap:
      held = held_shares(examples, self._inputs.tokenizer, index.corpus, ids)
      ids = np.where(held < retrieval.exclude_overlap, ids, NULL_ROW)
    source_rows = self.corpus.rows_in(index.corpus, examples["source_row"])
    if not retrieval.exclude_own:
      source_rows = np.full_like(source_rows, NULL_ROW)
    chosen = choose_candidates(ids, source_rows, retrieval.num_candidates)
    return self._collator.over(index.corpus)(examples, chosen)

  def shapes(self) -> Iterator[Batch]:
    return self._collator.dummy_batches()


def open_stage(run: RunConfig, num_devices: int | None = None) -> Stage:
  """Opens a stage's tokenizer, corpus and examples, and checks that they fit.

  Args:
    run: the config.
    num_devices: over which this process' rows divide; by default all it has.

  Raises:
    ValueError, FileNotFoundError, OSError: they do not, or are not there.
  """
  for key in ("tokenizer", "corpus"):
    if not getattr(run.data, key):
      raise ValueError(f"data.{key} must be set, got ''.")
  tokenizer = load_tokenizer(run.data.tokenizer)
  corpus = PassageCorpus.open(run.data.corpus)
  corpus.check_tokenizer(tokenizer)
  for name, bert in (
    ("embedder.bert", run.embedder.bert),
    ("encoder", run.encoder),
  ):
    if bert.vocab_size < tokenizer.vocab_size:
      raise ValueError(
        f"{name}.vocab_size ({bert.vocab_size}) is below the tokenizer's "
        f"{tokenizer.vocab_size} pieces ({run.data.tokenizer})."
      )
  if run.stage in ("dpr", "openqa") and not run.data.train:
    raise ValueError(
      "data.train must name questions, a JSONL file or tfds:<set>/<split>, got "
      "''."
    )
  opener = _STAGES.get(run.stage) or _QA_STAGES[run.openqa.retriever]
  num_devices = num_devices or jax.local_device_count()
  return opener(Inputs(run, tokenizer, corpus, num_devices))


_STAGES: dict[str, Callable[[Inputs], Stage]] = {
  "ict": _Ict,
  "dpr": _Dpr,
  "mlm": _reading,
  "realm": _Realm,
}
_QA_STAGES: dict[str, Callable[[Inputs], Stage]] = {
  "dense": OpenQaStage,
  "bm25": Bm25QaStage,
  "none": _closed_book,
}
