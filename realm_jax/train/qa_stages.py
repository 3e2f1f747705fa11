# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning's questions, beside passages that towers or words find."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import grain
import jax
import numpy as np

from realm_jax.data.batches import sample_lengths
from realm_jax.data.beams import BeamCollator, with_gold
from realm_jax.data.collate import NULL_ROW
from realm_jax.data.pairs import gold_rows
from realm_jax.data.qa import Questions, question_rows
from realm_jax.index.bm25 import Bm25Index
from realm_jax.index.store import IndexVersion
from realm_jax.shapes import Batch
from realm_jax.train.inputs import Inputs
from realm_jax.train.probe import RecallProbe
from realm_jax.train.search import Searcher


class _Asked:
  """The questions of fine-tuning, and what lays out passages beside them."""

  def __init__(self, inputs: Inputs) -> None:
    run = inputs.run
    self.questions = Questions(run.data.train)
    gold = np.full(len(self.questions), NULL_ROW, np.int32)
    if run.openqa.read_gold:
      gold = gold_rows(self.questions, inputs.corpus)
    self.dataset = question_rows(
      run, inputs.tokenizer, self.questions, train=True
    ).map(lambda each: {**each, "gold_row": gold[int(each["index"])]})
    self.collator = BeamCollator(
      run,
      inputs.corpus,
      inputs.tokenizer,
      self.questions,
      sample_lengths(self.dataset, "query"),
      num_devices=inputs.num_devices,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )


class OpenQaStage:
  """Questions, each with a beam of passages and their vectors."""

  def __init__(self, inputs: Inputs) -> None:
    run = inputs.run
    self.corpus = inputs.corpus
    self._inputs, self._asked = inputs, _Asked(inputs)
    self._searcher = Searcher(run.embedder)
    self.probe: RecallProbe | None = probe_of_questions(inputs, self._searcher)

  def batches(self) -> grain.DatasetIterator:
    """See `Stage`."""
    return self._inputs.batches(self._asked.dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    """See `Stage`."""
    assert index is not None  # A stage with a probe is given one.
    openqa = self._inputs.run.openqa
    found = self._searcher.search(examples["query"], index, openqa.beam)
    gold = self.corpus.rows_in(index.corpus, examples["gold_row"])
    beam = with_gold(found.ids, gold, openqa.read)
    collator = self._asked.collator.over(index.corpus)
    return collator(
      {**examples, "gold_row": gold},
      beam,
      {"beam_embs": index.embeddings[beam]},
    )

  def shapes(self) -> Iterator[Batch]:
    """See `Stage`."""
    run = self._inputs.run
    examples = self._inputs.stand_in(self._asked.dataset)
    share = len(examples["index"])
    beam = np.tile(np.arange(run.openqa.beam, dtype=np.int32), (share, 1))
    embs = np.zeros((*beam.shape, run.embedder.dim), np.float32)
    yield from self._asked.collator.shapes(examples, beam, {"beam_embs": embs})


class Bm25QaStage:
  """Questions, each with the passages that BM25 finds: no more are read."""

  def __init__(self, inputs: Inputs) -> None:
    openqa = inputs.run.openqa
    run = dataclasses.replace(
      inputs.run, openqa=dataclasses.replace(openqa, beam=openqa.read)
    )
    inputs = dataclasses.replace(inputs, run=run)
    self.corpus = inputs.corpus
    self.probe: RecallProbe | None = None
    self._inputs, self._asked = inputs, _Asked(inputs)
    self._index = Bm25Index.open(inputs.corpus)

  def batches(self) -> grain.DatasetIterator:
    """See `Stage`."""
    return self._inputs.batches(self._asked.dataset)

  def prepare(self, examples: Any, index: IndexVersion | None) -> Batch:
    """See `Stage`."""
    del index
    num_read = self._inputs.run.openqa.read
    texts = [self._asked.questions[int(i)].text for i in examples["index"]]
    found, scores = self._index.search(texts, num_read)
    beam = with_gold(found, examples["gold_row"], num_read)
    for line in np.flatnonzero((beam != found).any(axis=1)):
      scores[line] = self._index.scores(texts[line])[beam[line]]
    return self._asked.collator(examples, beam, {"beam_scores": scores})

  def shapes(self) -> Iterator[Batch]:
    """See `Stage`."""
    examples = self._inputs.stand_in(self._asked.dataset)
    share = len(examples["index"])
    num_read = self._inputs.run.openqa.read
    beam = np.tile(np.arange(num_read, dtype=np.int32), (share, 1))
    scores = np.zeros(beam.shape, np.float32)
    yield from self._asked.collator.shapes(
      examples, beam, {"beam_scores": scores}
    )


def probe_of_questions(inputs: Inputs, searcher: Searcher) -> RecallProbe:
  """Returns a probe with questions: of validation, or else of training."""
  run, corpus = inputs.run, inputs.corpus
  questions = Questions(run.data.validation or run.data.train)
  gold = gold_rows(questions, corpus)
  rows = question_rows(run, inputs.tokenizer, questions, train=False)
  return RecallProbe(
    searcher,
    rows.map(lambda each: {**each, "gold_row": gold[int(each["index"])]}),
    corpus,
    held_out=bool(run.data.validation),
  )
