# SPDX-License-Identifier: Apache-2.0
"""The inverse cloze task: which passage lost this sentence (ORQA section 3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def in_batch_log_probs(
  query_embs: Float[Array, "B D"],
  passage_embs: Float[Array, "B D"],
  temperature: float,
) -> Float[Array, "B B"]:
  """log p(passage j | query i) in nats; the right one is on the diagonal.

  B is the global batch: every query's negatives are the other queries'
  passages, wherever these were computed.
  """
  scores = jnp.einsum(
    "id,jd->ij",
    query_embs,
    passage_embs,
    preferred_element_type=jnp.float32,
  )
  return jax.nn.log_softmax(scores / temperature, axis=-1)
