# SPDX-License-Identifier: Apache-2.0
"""Which passage is it from, or for: the inverse cloze task (ORQA section 3).

With questions in the place of sentences it is DPR's objective.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from realm_jax.objectives.retrieval import LOG_ZERO


def in_batch_log_probs(
  query_embs: Float[Array, "B D"],
  passage_embs: Float[Array, "n D"],
  temperature: float,
  passage_ids: Int[Array, "n"] | None = None,
) -> Float[Array, "B n"]:
  """log p(passage j | query i) in nats; see `own_passages` for the right one.

  B is the global batch: every query's negatives are all other passages,
  wherever these were computed.

  Args:
    query_embs: of the queries.
    passage_embs: each query's own passage, then as many further ones for each;
      or one passage for as many queries each.
    temperature: that scores are divided by.
    passage_ids: passages of one id are one passage. Where that is a query's
      own, its other copies are left out, with LOG_ZERO: they are no negatives.
      None: all differ.
  """
  scores = jnp.einsum(
    "id,jd->ij",
    query_embs,
    passage_embs,
    preferred_element_type=jnp.float32,
  )
  scores /= temperature
  if passage_ids is not None:
    own = own_passages(*scores.shape)[:, None]
    same = passage_ids[own] == passage_ids[None, :]
    others = jnp.arange(len(passage_ids))[None, :] != own
    scores = jnp.where(same & others, LOG_ZERO, scores)
  return jax.nn.log_softmax(scores, axis=-1)


def own_passages(num_queries: int, num_passages: int) -> Int[Array, "B"]:
  """Returns which passage is each query's own.

  Of several passages a query it is the first of its share; several queries a
  passage share theirs.
  """
  return jnp.arange(num_queries) * num_passages // num_queries
