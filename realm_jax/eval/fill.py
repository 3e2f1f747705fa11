# SPDX-License-Identifier: Apache-2.0
"""What a knowledge-augmented encoder puts into a masked span."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from realm_jax import shapes
from realm_jax.config import RunConfig
from realm_jax.models.embedder import Embedder, tower
from realm_jax.models.reader import KnowledgeAugmentedEncoder
from realm_jax.objectives import mlm, retrieval
from realm_jax.shapes import Batch, PackedRows, Params, TokenRows


class Filled(NamedTuple):
  """A batch of masked spans, filled in. Candidate 0 is the null document."""

  answer_log_probs: shapes.Array  # f32[B, K]: log p(y|z,x) of the true span.
  spans: (
    shapes.Array
  )  # i32[B, K, M]: the likeliest beside each candidate alone.
  best: shapes.Array  # i32[B]: the candidate whose span the marginal prefers.
  marginal: shapes.Array  # f32[B]: log p(y|x) of the true span.


def choose_span(
  retrieval_log_probs: Float[Array, "B K"],
  log_probs: Float[Array, "B K M V"],
  keep: Bool[Array, "B M"],
) -> tuple[Int[Array, "B K M"], Int[Array, "B"]]:
  """The span of greatest sum_z p(z|x) p(span|z,x), among K proposals.

  Each candidate proposes the span that is likeliest beside it. The likeliest
  piece at each place by itself could mix the names that two passages give.

  Returns:
    The proposals, and which of them is chosen.
  """
  proposals = jnp.argmax(log_probs, axis=-1)  # [B, K, M]
  # Of every candidate, the log-probability of every proposal's pieces.
  asked = proposals.transpose(0, 2, 1)[:, None]  # [B, 1, M, K]
  asked = jnp.broadcast_to(asked, (*log_probs.shape[:3], asked.shape[-1]))
  pieces = jnp.take_along_axis(log_probs, asked, axis=-1)  # [B, K, M, K]
  kept = jnp.where(keep[:, None, :, None], pieces, 0.0)
  spans = kept.sum(axis=2)  # [B, K, K]: candidate, proposal.
  marginal = jax.nn.logsumexp(retrieval_log_probs[:, :, None] + spans, axis=1)
  return proposals, jnp.argmax(marginal, axis=-1)


def make_scorer(
  run: RunConfig,
) -> Callable[[Params, Batch], Float[Array, "B K"]]:
  """Returns jitted `(retriever params, realm batch) -> log p(z|x)`."""
  embedder: Any = Embedder(run.embedder)

  @jax.jit
  def score(params: Params, batch: Batch) -> jax.Array:
    def embed(side: str, rows: TokenRows | PackedRows) -> jax.Array:
      variables = {"params": tower(params, side)}
      return embedder.apply(variables, **rows, deterministic=True)

    queries = embed("query", batch["query"])
    passages = embed("document", batch["passages"]).reshape(
      len(queries), -1, queries.shape[1]
    )  # [B, K, D]
    scores = retrieval.candidate_scores(
      queries, passages, run.embedder.temperature
    )
    keep = batch["candidate_mask"]
    if not run.retrieval.null_document:
      keep = keep.at[:, 0].set(False)
    return retrieval.candidate_log_probs(scores, keep)

  return score


def make_filler(
  run: RunConfig,
) -> Callable[[Params, Float[Array, "B K"], Batch], Filled]:
  """Returns jitted `(encoder params, log p(z|x), realm batch) -> Filled`."""
  encoder: Any = KnowledgeAugmentedEncoder(run.encoder)

  @jax.jit
  def fill(
    params: Params, retrieval_log_probs: jax.Array, batch: Batch
  ) -> Filled:
    num_queries, num_candidates = retrieval_log_probs.shape
    keep = batch["target_mask"]
    logits = encoder.apply(
      {"params": params},
      **batch["joints"],
      positions=jnp.repeat(batch["positions"], num_candidates, axis=0),
      deterministic=True,
    )
    log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(
      num_queries, num_candidates, keep.shape[1], -1
    )  # [B, K, M, V]
    targets = batch["targets"][:, None, :, None]
    of_targets = jnp.take_along_axis(
      log_probs, jnp.broadcast_to(targets, (*log_probs.shape[:3], 1)), axis=-1
    )[..., 0]  # [B, K, M]
    spans, best = choose_span(retrieval_log_probs, log_probs, keep)
    marginal = mlm.marginal_log_likelihood(
      retrieval_log_probs, of_targets, keep, run.retrieval.marginal
    )
    answer_log_probs = mlm.span_log_likelihood(
      of_targets, jnp.broadcast_to(keep[:, None, :], of_targets.shape)
    )
    return Filled(answer_log_probs, spans, best, marginal)

  return fill
