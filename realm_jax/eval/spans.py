# SPDX-License-Identifier: Apache-2.0
"""From scored spans to distinct answers (ORQA section 5)."""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from realm_jax import shapes
from realm_jax.config import RunConfig
from realm_jax.eval import scores
from realm_jax.eval.predictions import Answer, Evidence
from realm_jax.models.reader import span_reader
from realm_jax.shapes import PackedRows, Params, TokenRows

_MENTIONS = 64  # Best spans of a question, from which answers are gathered.


class BestSpans(NamedTuple):
  """The n best spans of all passages that were read for a question."""

  scores: (
    shapes.Array
  )  # f32[B, n], descending: the reader's plus the passage's.
  places: shapes.Array  # i32[B, n], of the span in a flattened [R, T, W].
  log_totals: shapes.Array  # f32[B]: log of the sum over all spans' exp(score).


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
  """A span of one of the passages that were read."""

  slot: int  # Of the passage, 0 to R - 1.
  start: int  # First piece, counted in the passage's body, ...
  end: int  # ... and one past the last.
  score: float


def best_spans(
  span_scores: Float[Array, "B R T W"],
  passage_scores: Float[Array, "B R"],
  count: int,
) -> BestSpans:
  """Ranks all spans of a question's passages together, as its loss does."""
  total = span_scores + passage_scores[:, :, None, None]
  flat = total.reshape(total.shape[0], -1)
  best, places = jax.lax.top_k(flat, count)
  return BestSpans(best, places, jax.nn.logsumexp(flat, axis=-1))


def make_reader(run: RunConfig, num_read: int) -> Callable[..., BestSpans]:
  """Returns the jitted reader of R = `num_read` passages a question.

  It takes the reader's parameters, B*R joint rows of T tokens or fewer,
  packed or not, their block mask [B*R, T] and the passages' retrieval scores
  f32[B, R].
  """
  reader: Any = span_reader(run)

  @jax.jit
  def read(
    params: Params,
    rows: TokenRows | PackedRows,
    block_mask: Array,
    scores: Array,
  ) -> BestSpans:
    spans = reader.apply(
      {"params": params}, **rows, block_mask=block_mask, deterministic=True
    )
    spans = spans.reshape(-1, num_read, *spans.shape[1:])  # [B, R, T, W]
    return best_spans(spans, scores, min(_MENTIONS, spans[0].size))

  return read


def locate_spans(
  span_scores: Float[np.ndarray, " n"],
  places: Int[np.ndarray, " n"],
  block_mask: Bool[np.ndarray, "R T"],
  max_span: int,
) -> list[Span]:
  """Turns one question's places into pieces of passages.

  Args:
    span_scores: of the places.
    places: in a flattened [R, T, W].
    block_mask: True on the pieces of each passage's body.
    max_span: W.
  """
  num_tokens = block_mask.shape[1]
  first = block_mask.argmax(axis=1)  # [R]: of the body, in the joint row.
  last = first + block_mask.sum(axis=1)
  found = []
  for score, place in zip(span_scores, places, strict=True):
    slot, rest = divmod(int(place), num_tokens * max_span)
    start, width = divmod(rest, max_span)
    end = start + width + 1
    # Fewer real spans than places: the rest lie outside every passage.
    if first[slot] <= start < end <= last[slot]:
      offset = int(first[slot])
      found.append(
        Span(
          slot=slot,
          start=start - offset,
          end=end - offset,
          score=float(score),
        )
      )
  return found


def gather_answers(
  mentions: Sequence[Evidence], log_total: float, count: int
) -> tuple[Answer, ...]:
  """Sums mentions that say the same, as the reader's loss sums gold spans.

  ORQA answers with the best single span. The sum differs where an answer
  stands in several passages, or twice in one.

  Args:
    mentions: best first.
    log_total: log of the sum of all spans' exp(score).
    count: answers wanted, at most.

  Returns:
    Distinct answers by probability; each with one mention a passage.
  """
  by_answer: dict[str, list[Evidence]] = {}
  for mention in mentions:
    text = mention.text[mention.start : mention.end]
    # What normalises to nothing ("%", "a") is no answer like any other.
    same = scores.normalise_answer(text) or text
    by_answer.setdefault(same, []).append(mention)
  answers = [_sum_up(same, log_total) for same in by_answer.values()]
  answers.sort(key=lambda answer: -answer.probability)
  return tuple(answers[:count])


def _sum_up(same: Sequence[Evidence], log_total: float) -> Answer:
  best = same[0]
  score = float(np.logaddexp.reduce([m.span_score for m in same]))
  of_passage: dict[str, Evidence] = {}
  for mention in same:
    of_passage.setdefault(mention.uid, mention)
  return Answer(
    text=best.text[best.start : best.end],
    score=score,
    probability=math.exp(min(0.0, score - log_total)),
    evidence=tuple(of_passage.values()),
  )
