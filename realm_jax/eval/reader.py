# SPDX-License-Identifier: Apache-2.0
"""Answers read in passages that were found for questions (ORQA section 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jaxtyping import Bool, Float, Int, Int32
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import packing
from realm_jax.data.collate import (
  joint_lengths,
  joint_rows,
  query_rows,
  repeated,
)
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.packing import Packing
from realm_jax.data.records import Passage
from realm_jax.data.tokenize import Encoding, Tokenizer
from realm_jax.eval.batching import fixed_batches
from realm_jax.eval.predictions import Answer, AnsweredQuestion, Evidence
from realm_jax.eval.spans import (
  BestSpans,
  Span,
  gather_answers,
  locate_spans,
  make_reader,
)
from realm_jax.index.search import Neighbors
from realm_jax.objectives.retrieval import LOG_ZERO
from realm_jax.shapes import Params

_BATCH = 8
_USUAL_QUERY = 20  # Pieces of a question.
_ANSWERS = 5


class PassageReader:
  """A fine-tuned run's span reader."""

  def __init__(
    self,
    run: RunConfig,
    params: Params,
    tokenizer: Tokenizer,
    corpus: PassageCorpus,
    num_read: int,
    usual_rows: Int[np.ndarray, "_"] | None = None,
  ) -> None:
    """Plans the shapes of batches.

    Args:
      run: the config.
      params: of the reader.
      tokenizer: the corpus' own.
      corpus: whose passages are as long as those to be read.
      num_read: R, passages that are read for each question.
      usual_rows: of the corpus, such as will be read; None for all alike.
    """
    self._run, self._tokenizer = run, tokenizer
    self._params = jax.device_put(params)
    self.num_read = num_read
    self._read = make_reader(run, num_read)
    if usual_rows is None:
      usual_rows = np.arange(len(corpus))
    self._packing = self._plan_packing(corpus, usual_rows)

  def read(
    self, questions: Sequence[str], found: Neighbors, corpus: PassageCorpus
  ) -> list[AnsweredQuestion]:
    """Returns distinct answers to each question, likeliest first.

    Args:
      questions: n of them.
      found: passages of each, of which the first R are read.
      corpus: of the passages.
    """
    answered: list[AnsweredQuestion] = []
    for members, count in fixed_batches(range(len(questions)), _BATCH):
      asked = [questions[i] for i in members]
      of_batch = Neighbors(found.ids[members], found.scores[members])
      answered += self._read_batch(asked, of_batch, corpus)[:count]
    return answered

  def _plan_packing(
    self, corpus: PassageCorpus, usual_rows: Int[np.ndarray, "_"]
  ) -> Packing:
    """Plans for questions of a usual length; longer ones fit, too."""
    rows = packing.simulate(usual_rows, _BATCH * self.num_read)
    longest = self._run.lengths.joint
    lengths = joint_lengths(
      np.full(rows.shape, min(_USUAL_QUERY, self._run.lengths.query)),
      corpus,
      rows,
      longest,
      with_title=self._run.data.reader_sees_title,
    )
    width = self._run.encoder.hidden_size
    return packing.plan(lengths, longest, model_width=width, multiple=1)

  def _read_batch(
    self, questions: Sequence[str], found: Neighbors, corpus: PassageCorpus
  ) -> list[AnsweredQuestion]:
    num_read = self.num_read
    rows = found.ids[:, :num_read]
    encoded = self._tokenizer.encode_batch(questions)
    queries = query_rows(
      [each.ids for each in encoded], self._tokenizer, self._run.lengths.query
    )
    joint = joint_rows(
      repeated(queries, num_read),
      corpus,
      self._tokenizer,
      rows.reshape(-1),
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    )
    # An empty place (a corpus of fewer passages) has no span to count.
    logits = np.maximum(found.scores, LOG_ZERO)
    best = jax.device_get(
      self._read(
        self._params,
        self._packing.fit(joint.rows),
        joint.block_mask,
        logits[:, :num_read],
      )
    )
    block_masks = joint.block_mask.reshape(len(questions), num_read, -1)
    probs = _softmax(logits)
    return [
      AnsweredQuestion(
        question=question,
        answers=self._answers(
          BestSpans(*(field[i] for field in best)),
          block_masks[i],
          rows[i],
          probs[i],
          corpus,
        ),
      )
      for i, question in enumerate(questions)
    ]

  def _answers(
    self,
    best: BestSpans,
    block_mask: Bool[np.ndarray, "R T"],
    rows: Int32[np.ndarray, " R"],
    retrieval_probs: Float[np.ndarray, " k"],
    corpus: PassageCorpus,
  ) -> tuple[Answer, ...]:
    """Makes one question's answers of its best spans."""
    spans = locate_spans(
      best.scores, best.places, block_mask, self._run.openqa.max_span
    )
    texts = {
      slot: self._text(int(rows[slot]), corpus)
      for slot in {span.slot for span in spans}
    }
    mentions = [
      texts[span.slot].evidence(span, float(retrieval_probs[span.slot]))
      for span in spans
      if texts[span.slot].is_whole
    ]
    return gather_answers(mentions, float(best.log_totals), _ANSWERS)

  def _text(self, row: int, corpus: PassageCorpus) -> "_PassageText":
    passage = corpus.passage(row)
    encoding = self._tokenizer.encode(passage.text)
    # A passage cut inside a word (one longer than a passage) has other
    # pieces than its text by itself, so there is no telling where they are.
    is_whole = np.array_equal(encoding.ids, corpus.body_ids(row))
    return _PassageText(passage, encoding, is_whole)


class _PassageText(NamedTuple):
  """A passage whose pieces can be told in characters, if it is whole."""

  passage: Passage
  encoding: Encoding
  is_whole: bool

  def evidence(self, span: Span, retrieval_prob: float) -> Evidence:
    return Evidence(
      uid=self.passage.uid,
      title=self.passage.title,
      text=self.passage.text,
      start=int(self.encoding.starts[span.start]),
      end=int(self.encoding.ends[span.end - 1]),
      retrieval_prob=retrieval_prob,
      span_score=span.score,
    )


def _softmax(scores: Float[np.ndarray, "B k"]) -> Float[np.ndarray, "B k"]:
  weights = np.exp(scores - scores.max(axis=1, keepdims=True))
  return weights / weights.sum(axis=1, keepdims=True)
