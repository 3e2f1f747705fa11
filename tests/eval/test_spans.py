# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.eval import spans
from realm_jax.eval.predictions import Evidence

B, R, T, W = 3, 2, 7, 3


def _slow_spans(span_scores, passage_scores, block_mask):
  """(score, slot, first piece, end piece) of all real spans, best first."""
  found = []
  for slot in range(R):
    inside = np.flatnonzero(block_mask[slot])
    for start in inside:
      for width in range(W):
        if start + width in inside:
          score = span_scores[slot, start, width] + passage_scores[slot]
          first = start - inside[0]
          found.append((score, slot, first, first + width + 1))
  return sorted(found, reverse=True)


def _inputs():
  rng = np.random.default_rng(0)
  block_mask = np.zeros((B, R, T), bool)
  for mask in block_mask.reshape(-1, T):
    start = rng.integers(0, 4)
    mask[start : start + rng.integers(1, 4)] = True
  end_inside = np.pad(block_mask, [(0, 0), (0, 0), (0, W - 1)])
  inside = np.stack(
    [block_mask & end_inside[..., w : w + T] for w in range(W)], -1
  )
  scores = rng.normal(size=(B, R, T, W))
  span_scores = np.where(inside, scores, -1e4).astype(np.float32)
  return span_scores, rng.normal(size=(B, R)).astype(np.float32), block_mask


def test_best_spans_equal_a_sort_of_all_real_ones():
  span_scores, passage_scores, block_mask = _inputs()

  best = spans.best_spans(
    jnp.asarray(span_scores), jnp.asarray(passage_scores), 30
  )

  for b in range(B):
    found = spans.locate_spans(
      np.asarray(best.scores[b]), np.asarray(best.places[b]), block_mask[b], W
    )
    wanted = _slow_spans(span_scores[b], passage_scores[b], block_mask[b])
    assert 1 < len(wanted) < 30
    assert [(s.slot, s.start, s.end) for s in found] == [w[1:] for w in wanted]
    np.testing.assert_allclose(
      [s.score for s in found], [w[0] for w in wanted], rtol=1e-6
    )
    total = np.logaddexp.reduce([w[0] for w in wanted])
    assert best.log_totals[b] == pytest.approx(total, rel=1e-6)


def test_a_slot_without_a_passage_gives_no_span():
  places = np.arange(R * T * W)
  block_mask = np.zeros((R, T), bool)
  assert spans.locate_spans(np.zeros(len(places)), places, block_mask, W) == []


def _mention(text, start, end, score, uid="a"):
  return Evidence(
    uid=uid,
    title="",
    text=text,
    start=start,
    end=end,
    retrieval_prob=0.5,
    span_score=score,
  )


def test_mentions_of_one_answer_are_summed_whatever_their_case():
  mentions = [
    _mention("Milan", 0, 5, 2.0),
    _mention("The Rome", 4, 8, 1.5),
    _mention("rome, ROME", 0, 4, 1.4, uid="b"),
    _mention("rome, ROME", 6, 10, 1.0, uid="b"),
  ]
  weights = np.exp([2.0, 1.5, 1.4, 1.0])
  total = weights.sum() + 1.0  # Other spans hold the rest.

  first, second = spans.gather_answers(mentions, np.log(total), 5)

  assert (first.text, second.text) == ("Rome", "Milan")
  assert first.probability == pytest.approx(weights[1:].sum() / total)
  assert first.score == pytest.approx(np.log(weights[1:].sum()))
  assert second.probability == pytest.approx(weights[0] / total)
  # One mention a passage, the best.
  assert [(e.uid, e.start) for e in first.evidence] == [("a", 4), ("b", 0)]


def test_marks_that_normalise_to_nothing_are_not_taken_for_one_answer():
  mentions = [_mention("%$a", i, i + 1, 1.0) for i in range(3)]
  answers = spans.gather_answers(mentions, 5.0, 5)
  assert [answer.text for answer in answers] == ["%", "$", "a"]


def test_no_more_answers_than_asked_for_and_none_of_no_mentions():
  mentions = [_mention("bcdef", i, i + 1, -float(i)) for i in range(5)]
  answers = spans.gather_answers(mentions, 1.0, 2)
  assert [answer.text for answer in answers] == ["b", "c"]
  assert spans.gather_answers([], 0.0, 2) == ()
