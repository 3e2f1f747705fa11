# SPDX-License-Identifier: Apache-2.0
"""REALM batches of random word pieces with chosen row lengths.

"full": every row has its greatest length, as peers without length buckets
always pay. "real": passages as long as Wikipedia paragraphs are (log-normal,
median 140, mean 152, 95th percentile 275 word pieces, cut at P), queries as
long as sentences (median 30, cut at Q), slot 0 the null document.
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from realm_jax.config import BertConfig, RunConfig
from realm_jax.data import packing
from realm_jax.shapes import Batch, PackedRows, TokenRows

Lengths = Literal["full", "real"]

_PASSAGE = (140, 0.41)  # Median, sigma of the logarithm.
_QUERY = (30, 0.5)
_SHORTEST = 8
_TITLE = 7  # Of a passage: [CLS] title [SEP] ... [SEP], not in joint rows.
_FIRST_WORD = 1000  # Below: special and unused pieces, as in BERT's files.
_SIMULATED = 1000  # Batches from which the static lengths are chosen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLengths:
  """Tokens of each row of one batch."""

  query: np.ndarray  # i64[B]
  passage: np.ndarray  # i64[B, K]
  joint: np.ndarray  # i64[B, K]


class Workload:
  """Draws lengths and makes batches of them, in a few static shapes."""

  def __init__(
    self, run: RunConfig, kind: Lengths, *, num_passages: int, devices: int
  ) -> None:
    """Draws a corpus of passage lengths and fixes the static shapes."""
    self._run, self._kind = run, kind
    rng = np.random.default_rng(0)
    self.corpus = self._draw(rng, _PASSAGE, run.lengths.passage, num_passages)
    k = run.retrieval.num_candidates
    picks = rng.integers(num_passages, size=(_SIMULATED, run.batch_size, k - 1))
    expected = [self.lengths(self.query_lengths(rng), pick) for pick in picks]

    def plan(name: str, bert: BertConfig) -> packing.Packing:
      flat = [getattr(lengths, name).reshape(-1) for lengths in expected]
      return packing.plan(
        np.stack(flat),
        getattr(run.lengths, name),
        model_width=bert.hidden_size,
        multiple=devices,
      )

    self._passages = plan("passage", run.embedder.bert)
    self._joints = plan("joint", run.encoder)

  def _draw(
    self,
    rng: np.random.Generator,
    shape: tuple[int, float],
    longest: int,
    count: int,
  ) -> np.ndarray:
    if self._kind == "full":
      return np.full(count, longest)
    median, sigma = shape
    drawn = rng.lognormal(math.log(median), sigma, count).astype(np.int64)
    return np.clip(drawn, _SHORTEST, longest)

  def query_lengths(self, rng: np.random.Generator) -> np.ndarray:
    """Returns i64[B]."""
    longest = self._run.lengths.query
    return self._draw(rng, _QUERY, longest, self._run.batch_size)

  def lengths(self, query: np.ndarray, rows: np.ndarray) -> RowLengths:
    """Returns row lengths where `rows` i64[B, K - 1] were retrieved."""
    limits = self._run.lengths
    null = np.full((len(rows), 1), 3)  # [CLS] [SEP] [SEP]
    passage = np.concatenate([null, self.corpus[rows]], axis=1)  # [B, K]
    joint = query[:, None] + np.maximum(passage - _TITLE, 0) + 1
    if self._kind == "full":
      passage[:], joint[:] = limits.passage, limits.joint
    return RowLengths(
      query=query, passage=passage, joint=np.minimum(joint, limits.joint)
    )

  def queries(self, rng: np.random.Generator, lengths: np.ndarray) -> TokenRows:
    """Returns rows [B, Q]."""
    longest = self._run.lengths.query
    return self._rows(rng, lengths, np.full(len(lengths), longest), longest)

  def batch(
    self, rng: np.random.Generator, queries: TokenRows, lengths: RowLengths
  ) -> Batch:
    """Returns what a step of the `realm` stage takes."""
    run = self._run
    shape = (run.batch_size, run.lengths.masks)
    heads = np.repeat(lengths.query, lengths.joint.shape[1])
    title = np.full(heads.shape, _TITLE)
    passage, joint = lengths.passage.reshape(-1), lengths.joint.reshape(-1)
    # One rung for both, as training takes it: fewer shapes to compile.
    rung = max(self._passages.first_fit(passage), self._joints.first_fit(joint))
    positions = 1 + rng.integers(lengths.query.min() - 2, size=shape)
    return {
      "query": queries,
      "passages": self._pack(rng, self._passages, passage, title, rung),
      "joints": self._pack(rng, self._joints, joint, heads, rung),
      "candidate_mask": np.ones(lengths.joint.shape, bool),
      "own_words": np.zeros(lengths.joint.shape, bool),
      "positions": np.sort(positions, axis=1).astype(np.int32),
      "targets": self._words(rng, shape),
      "target_mask": np.ones(shape, bool),
    }

  def batches_of_every_shape(self) -> list[Batch]:
    """Returns one batch for each of the static shapes that can come."""
    rng = np.random.default_rng(1)
    run = self._run
    rows = np.zeros(
      (run.batch_size, run.retrieval.num_candidates - 1), np.int64
    )
    query = self.query_lengths(rng)
    batch = self.batch(rng, self.queries(rng, query), self.lengths(query, rows))
    one = np.ones(rows.shape[0] * (rows.shape[1] + 1), np.int64)
    return [
      batch
      | {
        "passages": self._pack(rng, self._passages, one, one, rung),
        "joints": self._pack(rng, self._joints, one, one, rung),
      }
      for rung in range(len(self._joints.rungs))
    ]

  def _pack(
    self,
    rng: np.random.Generator,
    shapes: packing.Packing,
    lengths: np.ndarray,
    heads: np.ndarray,
    rung: int,
  ) -> PackedRows:
    rows = self._rows(rng, lengths, heads, lengths.max().item())
    return shapes.pack(rows, rung)

  def _rows(
    self,
    rng: np.random.Generator,
    lengths: np.ndarray,
    heads: np.ndarray,
    static: int,
  ) -> TokenRows:
    rows = _padded(lengths, heads, static)
    words = self._words(rng, rows["ids"].shape)
    return TokenRows(
      ids=np.where(rows["mask"], words, 0),
      segments=rows["segments"],
      mask=rows["mask"],
    )

  def _words(
    self, rng: np.random.Generator, shape: tuple[int, ...]
  ) -> np.ndarray:
    vocab = self._run.encoder.vocab_size
    return rng.integers(_FIRST_WORD, vocab, shape, dtype=np.int32)


def _padded(lengths: np.ndarray, heads: np.ndarray, static: int) -> TokenRows:
  column = np.arange(static)
  mask = column < lengths[:, None]
  segments = mask & (column >= heads[:, None])
  return TokenRows(
    ids=np.zeros(mask.shape, np.int32),
    segments=segments.astype(np.int32),
    mask=mask,
  )


def model_flop(run: RunConfig, lengths: RowLengths) -> float:
  """Floating-point operations that a training step's real tokens need.

  Matrix products alone, backward counted as twice forward; padding, dropout
  and recomputation count as nothing done.
  """

  def bert(config: BertConfig, rows: np.ndarray) -> float:
    width = config.hidden_size
    weights = 4 * width**2 + 2 * width * config.mlp_size
    products = 2 * weights * rows.sum() + 4 * width * (rows**2).sum()
    return float(config.num_layers * products)

  tower, encoder = run.embedder.bert, run.encoder
  texts = np.concatenate([lengths.query, lengths.passage.reshape(-1)])
  head = tower.hidden_size * (tower.hidden_size + run.embedder.dim)
  decoder = encoder.hidden_size * (encoder.hidden_size + encoder.vocab_size)
  masks = lengths.joint.size * run.lengths.masks
  forward = bert(tower, texts) + bert(encoder, lengths.joint.reshape(-1))
  return 3 * (forward + 2 * head * len(texts) + 2 * decoder * masks)
