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
  together: int = 1,
) -> Float[Array, "B n"]:
  """log p(passage j | query i) in nats; see `own_passages` for the right one.

  B is the global batch: every query's negatives are all other passages,
  wherever these were computed.

  Args:
    query_embs: of the queries.
    passage_embs: see `own_passages`.
    temperature: that scores are divided by.
    passage_ids: passages of one id are one passage. Where that is a query's
      own, its other copies are left out, with LOG_ZERO: they are no negatives.
      None: all differ.
    together: queries that share their passages.
  """
  scores = jnp.einsum(
    "id,jd->ij",
    query_embs,
    passage_embs,
    preferred_element_type=jnp.float32,
  )
  scores /= temperature
  if passage_ids is not None:
    num_queries, num_passages = scores.shape
    own = own_passages(num_queries, num_passages, together)[:, None]
    same = passage_ids[own] == passage_ids[None, :]
    others = jnp.arange(len(passage_ids))[None, :] != own
    scores = jnp.where(same & others, LOG_ZERO, scores)
  return jax.nn.log_softmax(scores, axis=-1)


def own_passages(
  num_queries: int, num_passages: int, together: int = 1
) -> Int[Array, "B"]:
  """Returns which passage is each query's own.

  Queries come in groups of `together`, each with as many of the passages: its
  own is the first of them.
  """
  share = num_passages * together // num_queries
  return jnp.arange(num_queries) // together * share
