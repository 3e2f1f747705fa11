# SPDX-License-Identifier: Apache-2.0
"""Masked-word likelihoods and their marginal over passages (REALM eq. 1).

The paper's marginal is joint over a span, p(y|x) = sum_z p(z|x) prod_j
p(y_j|z,x); the released code marginalises each mask on its own. They differ
as soon as a span has two pieces. Both are here.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Marginal = Literal["per_mask", "joint"]


def token_log_probs(
  logits: Float[Array, "*batch V"], targets: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
  """log p(target) in nats, f32, without keeping [..., V] probabilities."""
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def span_log_likelihood(
  log_probs: Float[Array, "*batch M"], keep: Bool[Array, "*batch M"]
) -> Float[Array, "*batch"]:
  """Sum over a query's real masks, in nats."""
  return jnp.sum(jnp.where(keep, log_probs, 0.0), axis=-1)


def marginal_log_likelihood(
  candidate_log_probs: Float[Array, "B K"],
  log_probs: Float[Array, "B K M"],
  keep: Bool[Array, "B M"],
  marginal: Marginal,
) -> Float[Array, "B"]:
  """log p(y | x) of each query's masked pieces, in nats.

  Args:
    candidate_log_probs: log p(z | x).
    log_probs: log p(y_m | z, x).
    keep: which of the M slots are real masks.
    marginal: "joint" as in the paper, "per_mask" as in the released code.
  """
  if marginal == "joint":
    kept = jnp.where(keep[:, None, :], log_probs, 0.0)  # [B, K, M]
    per_candidate = candidate_log_probs + kept.sum(axis=-1)  # [B, K]
    return jax.nn.logsumexp(per_candidate, axis=-1)
  per_mask = jax.nn.logsumexp(
    candidate_log_probs[:, :, None] + log_probs, axis=1
  )  # [B, M]
  return span_log_likelihood(per_mask, keep)


def retrieval_utility(
  marginal: Float[Array, "B"], null_log_likelihood: Float[Array, "B"]
) -> Float[Array, "B"]:
  """log p(y | x) - log p(y | null, x), nats a query (REALM section 3.3).

  The paper states it for one document; this is the utility of retrieving at
  all, which the released code logs.
  """
  return marginal - null_log_likelihood
