# SPDX-License-Identifier: Apache-2.0
"""ORQA's two losses: find a passage, then the span (ORQA section 4)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from realm_jax.objectives.retrieval import LOG_ZERO


def retriever_log_likelihood(
  scores: Float[Array, "B C"],
  beam_mask: Bool[Array, "B C"],
  has_answer: Bool[Array, "B C"],
) -> tuple[Float[Array, "B"], Bool[Array, "B"]]:
  """log of the beam's probability mass on passages that hold an answer.

  Returns:
    Nats, 0 where no passage of the beam holds one; and where some does.
  """
  return _log_mass(jnp.where(beam_mask, scores, LOG_ZERO), has_answer)


def reader_log_likelihood(
  span_scores: Float[Array, "B R T W"],
  passage_scores: Float[Array, "B R"],
  gold_spans: Bool[Array, "B R T W"],
) -> tuple[Float[Array, "B"], Bool[Array, "B"]]:
  """log of the probability mass on spans that equal an answer.

  One softmax over all spans of all R passages; a span's score is the reader's
  plus its passage's retrieval score.

  Returns:
    Nats, 0 where no span equals an answer; and where some does.
  """
  scores = span_scores + passage_scores[:, :, None, None]
  rows = scores.shape[0]
  return _log_mass(scores.reshape(rows, -1), gold_spans.reshape(rows, -1))


def _log_mass(
  scores: Float[Array, "B n"], right: Bool[Array, "B n"]
) -> tuple[Float[Array, "B"], Bool[Array, "B"]]:
  log_probs = jax.nn.log_softmax(scores.astype(jnp.float32), axis=-1)
  found = right.any(axis=-1)
  log_mass = jax.nn.logsumexp(jnp.where(right, log_probs, LOG_ZERO), axis=-1)
  # Where nothing is right the sum is LOG_ZERO: no loss and no gradient.
  return jnp.where(found, log_mass, 0.0), found
