# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's towers and encoder, which fill in masked spans."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int, Int32
import numpy as np
from rich.progress import track

from realm_jax import checkpoints, shapes
from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.candidates import Candidates, RealmCollator
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.masking import Masked, mask_pieces, pieces_of
from realm_jax.data.pretrain import sentence_of
from realm_jax.data.records import MaskedText, Passage
from realm_jax.data.tokenize import Tokenizer
from realm_jax.eval.batching import fixed_batches
from realm_jax.eval.fill import Filled, make_filler, make_scorer
from realm_jax.eval.predictions import Candidate, SpanPrediction
from realm_jax.objectives.retrieval import LOG_ZERO
from realm_jax.shapes import Batch, TokenRows

_NULL_DOCUMENT = Passage(uid="", title="", text="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedSpan:
  """A text with its first span masked."""

  before: str
  answer: str
  after: str
  masked: Masked  # Positions are places among the text's pieces.
  target: Int32[np.ndarray, "_"]  # All pieces of the span, also beyond M.
  source_row: int = collate.NULL_ROW  # The passage to leave out.
  passage_uid: str = ""  # The passage to find, "" if unknown.
  named: range = range(0)  # Its rows in the corpus.


def mask_first_span(
  text: MaskedText, run: RunConfig, tokenizer: Tokenizer
) -> MaskedSpan | None:
  """Masks a text's first span, in its sentence if it has sentences.

  Returns:
    Its text and pieces, not yet with rows of a corpus; None where there is no
    span, or none inside the query's length.
  """
  sentence = sentence_of(text, text.spans[0]) if text.spans else None
  if sentence is None:
    return None
  encoding = tokenizer.encode(sentence.text)[: run.lengths.query - 2]
  start, end = sentence.spans[0]
  chosen = pieces_of(encoding, (start, end))
  if not len(chosen):
    return None
  return MaskedSpan(
    before=sentence.text[:start],
    answer=sentence.text[start:end],
    after=sentence.text[end:],
    masked=mask_pieces(
      encoding.ids, chosen, tokenizer.mask_id, run.lengths.masks
    ),
    target=encoding.ids[chosen],
  )


def span_examples(
  spans: Sequence[MaskedSpan], run: RunConfig, tokenizer: Tokenizer
) -> Batch:
  """Returns what `RealmCollator` takes as examples."""
  masked = [span.masked for span in spans]
  target_mask = np.stack([m.target_mask for m in masked])
  positions = np.stack([m.positions for m in masked])
  return {
    "query": collate.query_rows(
      [m.ids for m in masked], tokenizer, run.lengths.query
    ),
    # One further on: [CLS] comes first.
    "positions": positions + target_mask.astype(np.int32),
    "targets": np.stack([m.targets for m in masked]),
    "target_mask": target_mask,
  }


class _Found(NamedTuple):
  """What the towers and the encoder say of a batch, where there are such."""

  retrieval_log_probs: shapes.Array | None  # f32[B, K]: log p(z|x).
  filled: Filled | None


class SpanFiller:
  """A checkpoint's encoder (mlm), its towers (ict, dpr), or both (realm)."""

  def __init__(
    self,
    workdir: str,
    step: int,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    query_lengths: Int[np.ndarray, "_"],
    *,
    batch_size: int,
  ) -> None:
    """Restores parameters.

    Args:
      workdir: of a run of any stage but openqa.
      step: of the checkpoint.
      run: its config; `retrieval.num_candidates` is K.
      corpus: of the passages that spans are filled in beside.
      tokenizer: the corpus' own.
      query_lengths: tokens of texts as they will come, special tokens
        included.
      batch_size: spans that are filled in together.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: the tokenizer is not the corpus'.
    """
    corpus.check_tokenizer(tokenizer)
    self._corpus, self._tokenizer = corpus, tokenizer
    self._query_lengths = query_lengths
    self._run = run = dataclasses.replace(
      run,
      batch_size=batch_size,
      # Of any batch size: there are no gradients to accumulate.
      optimizer=dataclasses.replace(run.optimizer, accumulate_steps=1),
    )

    def restored(part: str) -> Any:
      return jax.device_put(checkpoints.restore_params(workdir, step, part))

    self._encoder = self._retriever = None
    if run.stage in ("mlm", "realm"):
      self._encoder, self._fill = restored("encoder"), make_filler(run)
    if run.has_retriever:
      # Only with an encoder is the null document learnt.
      has_null = run.retrieval.null_document and self._encoder is not None
      retrieval = dataclasses.replace(run.retrieval, null_document=has_null)
      self._retriever = restored("retriever")
      self._score = make_scorer(dataclasses.replace(run, retrieval=retrieval))

  def fill_all(
    self,
    spans: Sequence[MaskedSpan],
    neighbors: Int32[np.ndarray, "n _"] | None,
  ) -> list[SpanPrediction]:
    """Fills in any number of spans as `fill` does, and shows how far it is."""
    found: list[SpanPrediction] = []
    batches = list(fixed_batches(range(len(spans)), self._run.batch_size))
    for members, count in track(batches, "Filling in masked spans"):
      rows = None if neighbors is None else neighbors[members]
      found += self.fill([spans[i] for i in members], rows)[:count]
    return found

  def fill(
    self,
    spans: Sequence[MaskedSpan],
    neighbors: Int32[np.ndarray, "B _"] | None,
  ) -> list[SpanPrediction]:
    """Fills in a batch of spans.

    Args:
      spans: as many as `batch_size`.
      neighbors: rows of the corpus, best first, NULL_ROW for none, of which
        the first K - 1 are candidates; None for the null document alone.
    """
    found = jax.device_get(self._find(spans, neighbors))
    predictions = []
    for i, span in enumerate(spans):
      of_span = jax.tree.map(lambda leaf, i=i: leaf[i], found)
      rows = None if neighbors is None else neighbors[i]
      predictions.append(self._prediction(span, of_span, rows))
    return predictions

  def _find(
    self, spans: Sequence[MaskedSpan], neighbors: np.ndarray | None
  ) -> _Found:
    batch = span_examples(spans, self._run, self._tokenizer)
    if neighbors is None:
      batch["joints"] = self._null_joints(batch)
      return _Found(None, self._filled(jnp.zeros((len(spans), 1)), batch))
    batch = self._collate(batch, self._candidates_of(neighbors))
    if self._retriever is None:
      return _Found(None, self._filled(_null_alone(batch), batch))
    log_probs = self._score(self._retriever, batch)
    return _Found(log_probs, self._filled(log_probs, batch))

  def _filled(self, log_probs: jax.Array, batch: Batch) -> Filled | None:
    if self._encoder is None:
      return None
    return self._fill(self._encoder, log_probs, batch)

  @functools.cached_property
  def _collate(self) -> RealmCollator:
    return RealmCollator(
      self._run,
      self._corpus,
      self._tokenizer,
      self._query_lengths,
      num_devices=1,
    )

  @property
  def _num_others(self) -> int:
    return self._run.retrieval.num_candidates - 1

  def _candidates_of(self, neighbors: np.ndarray) -> Candidates:
    rows = neighbors[:, : self._num_others]
    missing = ((0, 0), (0, self._num_others - rows.shape[1]))
    mask = np.pad(rows >= 0, missing)
    return Candidates(np.pad(np.maximum(rows, 0), missing), mask)

  def _null_joints(self, examples: Batch) -> TokenRows:
    queries = examples["query"]
    num_queries = len(queries["ids"])
    return collate.joint_rows(
      queries,
      self._corpus,
      self._tokenizer,
      np.full(num_queries, collate.NULL_ROW),
      int(self._query_lengths.max()) + 1,  # The null document is one [SEP].
      with_title=False,
    ).rows

  def _prediction(
    self, span: MaskedSpan, found: _Found, neighbors: np.ndarray | None
  ) -> SpanPrediction:
    """Reads one span's part of what was found."""
    prediction = SpanPrediction(
      before=span.before,
      answer=span.answer,
      after=span.after,
      passage_uid=span.passage_uid,
      candidates=(
        () if neighbors is None else self._candidates(span, found, neighbors)
      ),
    )
    filled = found.filled
    if filled is None:
      return prediction
    predicted, closed_book = filled.spans[filled.best], filled.spans[0]
    log_marginal, log_null = filled.marginal, filled.answer_log_probs[0]
    is_open = found.retrieval_log_probs is not None
    return dataclasses.replace(
      prediction,
      prediction=self._decode(span, predicted),
      right=_is_right(span, predicted),
      answer_prob=_exp(log_marginal) if is_open else None,
      closed_book_prediction=self._decode(span, closed_book),
      closed_book_right=_is_right(span, closed_book),
      closed_book_answer_prob=_exp(log_null),
      retrieval_utility=float(log_marginal - log_null) if is_open else None,
    )

  def _candidates(
    self, span: MaskedSpan, found: _Found, neighbors: np.ndarray
  ) -> tuple[Candidate, ...]:
    rows = [row for row in neighbors[: self._num_others].tolist() if row >= 0]
    passages = [_NULL_DOCUMENT, *self._corpus.passages(rows)]
    # Without an encoder, the null document is none of the candidates.
    first = 1 if found.filled is None else 0
    return tuple(
      self._candidate(span, found, slot, passages[slot])
      for slot in range(first, len(passages))
    )

  def _candidate(
    self, span: MaskedSpan, found: _Found, slot: int, passage: Passage
  ) -> Candidate:
    log_probs, filled = found
    candidate = Candidate(
      uid=passage.uid,
      title=passage.title,
      text=passage.text,
      is_null=slot == 0,
      retrieval_prob=None if log_probs is None else _exp(log_probs[slot]),
    )
    if filled is None:
      return candidate
    of_answer = filled.answer_log_probs
    return dataclasses.replace(
      candidate,
      answer_prob=_exp(of_answer[slot]),
      retrieval_utility=float(of_answer[slot] - of_answer[0]),
      prediction=self._decode(span, filled.spans[slot]),
    )

  def _decode(self, span: MaskedSpan, pieces: np.ndarray) -> str:
    return self._tokenizer.decode(pieces[: len(span.target)])


def _null_alone(batch: Batch) -> jax.Array:
  """Returns f32[B, K], log p(z|x) of nothing but the null document."""
  slots = jnp.arange(batch["candidate_mask"].shape[1])
  log_probs = jnp.where(slots == 0, 0.0, LOG_ZERO)
  return jnp.broadcast_to(log_probs, batch["candidate_mask"].shape)


def _exp(log_prob: np.floating) -> float:
  return float(np.exp(log_prob))


def _is_right(span: MaskedSpan, pieces: np.ndarray) -> bool:
  # A span longer than M is not predicted to its end, so it is never right.
  return np.array_equal(pieces[: len(span.target)], span.target)
