# SPDX-License-Identifier: Apache-2.0
"""p(z | x) over the retrieved candidates (REALM section 3.1, eq. 2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Stands for log 0 without the NaN gradients of a true -inf.
LOG_ZERO = -1e9


def candidate_scores(
  query_embs: Float[Array, "B D"],
  passage_embs: Float[Array, "B K D"],
  temperature: float,
) -> Float[Array, "B K"]:
  """f(x, z): the inner product, over a temperature (1 as published), f32."""
  scores = jnp.einsum(
    "bd,bkd->bk",
    query_embs,
    passage_embs,
    preferred_element_type=jnp.float32,
  )
  return scores / temperature


def candidate_log_probs(
  scores: Float[Array, "B K"], keep: Bool[Array, "B K"]
) -> Float[Array, "B K"]:
  """log p(z | x) in nats, normalised over the kept candidates of a query.

  The paper sums over the whole corpus; the K best stand for it. A slot that
  is not kept gets LOG_ZERO and passes no gradient.
  """
  log_probs = jax.nn.log_softmax(jnp.where(keep, scores, LOG_ZERO), axis=-1)
  return jnp.where(keep, log_probs, LOG_ZERO)
