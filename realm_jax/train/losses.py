# SPDX-License-Identifier: Apache-2.0
"""What each stage minimises: its model applied to a batch, then its objective.

Each function makes a `LossFn`; the batches' fields are in `data/collate.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from realm_jax.config import RunConfig
from realm_jax.models.embedder import Embedder, tower
from realm_jax.models.reader import KnowledgeAugmentedEncoder, span_reader
from realm_jax.objectives import ict, mlm, open_qa, retrieval
from realm_jax.shapes import Batch, PackedRows, Params, Sums, TokenRows
from realm_jax.train.step import LossFn


def in_batch_loss(run: RunConfig) -> LossFn:
  """-log p(own passage | query) over the global batch: stages ict and dpr."""
  embedder = Embedder(run.embedder, run.remat)
  together = run.queries_together

  def loss(params: Params, batch: Batch, rng: jax.Array) -> Sums:
    query_rng, passage_rng = jax.random.split(rng)
    towers = params["retriever"]
    queries = _apply(embedder, tower(towers, "query"), query_rng)(
      batch["query"]
    )
    passages = _apply(embedder, tower(towers, "document"), passage_rng)(
      batch["passage"]
    )
    log_probs = ict.in_batch_log_probs(
      queries,
      passages,
      run.embedder.temperature,
      # ICT names none: there, a passage that lost another sentence differs.
      batch.get("passage_row"),
      together,
    )
    num_queries, num_passages = log_probs.shape
    places = ict.own_passages(num_queries, num_passages, together)
    own = jnp.take_along_axis(log_probs, places[:, None], axis=1)
    found = jnp.argmax(log_probs, axis=-1) == places
    return {"loss": _sum(-own), "in_batch_accuracy": _sum(found)}

  return loss


def mlm_loss(run: RunConfig) -> LossFn:
  """-log p(masked piece | text beside a given passage), a mask's mean.

  Closed book, the masks are the answer's places, and no passage is given.
  """
  encoder = KnowledgeAugmentedEncoder(run.encoder, run.remat)

  def loss(params: Params, batch: Batch, rng: jax.Array) -> Sums:
    logits = _apply(encoder, params["encoder"], rng)(
      batch["joint"], positions=batch["positions"]
    )
    log_probs = mlm.token_log_probs(logits, batch["targets"])  # [B, M]
    keep = batch["target_mask"]
    right = (jnp.argmax(logits, axis=-1) == batch["targets"]) & keep
    total, count = -jnp.sum(jnp.where(keep, log_probs, 0.0)), jnp.sum(keep)
    return {
      "loss": (total, _f32(count)),
      "piece_accuracy": (_f32(right.sum()), _f32(count)),
    }

  return loss


def realm_loss(run: RunConfig) -> LossFn:
  """The negative marginal log-likelihood over K candidates (REALM eq. 1).

  Candidates come from a stale index; p(z | x) is computed here, with the
  current parameters of both towers, and so is its gradient.
  """
  embedder = Embedder(run.embedder, run.remat)
  encoder = KnowledgeAugmentedEncoder(run.encoder, run.remat)

  def loss(params: Params, batch: Batch, rng: jax.Array) -> Sums:
    query_rng, passage_rng, joint_rng = jax.random.split(rng, 3)
    towers, keep = params["retriever"], batch["target_mask"]
    queries = _apply(embedder, tower(towers, "query"), query_rng)(
      batch["query"]
    )  # [B, D]
    passages = _apply(embedder, tower(towers, "document"), passage_rng)(
      batch["passages"]
    ).reshape(queries.shape[0], -1, queries.shape[1])  # [B, K, D]
    num_candidates = passages.shape[1]
    scores = retrieval.candidate_scores(
      queries, passages, run.embedder.temperature
    )
    candidate_mask = batch["candidate_mask"]
    if not run.retrieval.null_document:
      candidate_mask = candidate_mask.at[:, 0].set(False)
    doc_log_probs = retrieval.candidate_log_probs(scores, candidate_mask)
    logits = _apply(encoder, params["encoder"], joint_rng)(
      batch["joints"],
      positions=jnp.repeat(batch["positions"], num_candidates, axis=0),
    )  # [B * K, M, V]
    log_probs = mlm.token_log_probs(
      logits, jnp.repeat(batch["targets"], num_candidates, axis=0)
    ).reshape(*scores.shape, -1)  # [B, K, M]
    marginal = mlm.marginal_log_likelihood(
      doc_log_probs, log_probs, keep, run.retrieval.marginal
    )
    null = mlm.span_log_likelihood(log_probs[:, 0], keep)
    others = batch["candidate_mask"][:, 1:]
    return {
      **_marginal_sums(run, marginal, null, doc_log_probs, keep),
      "retrieval/own_words": _sum(batch["own_words"][:, 1:], others),
    }

  return loss


def _marginal_sums(
  run: RunConfig,
  marginal: jax.Array,
  null: jax.Array,
  doc_log_probs: jax.Array,
  keep: jax.Array,
) -> Sums:
  # The released code averages over masks, the paper over texts.
  per_mask = run.retrieval.marginal == "per_mask"
  count = _f32(keep.sum() if per_mask else keep.any(axis=-1).sum())
  real = keep.any(axis=-1)
  doc_probs = jnp.exp(doc_log_probs)
  entropy = -jnp.sum(doc_probs * jnp.maximum(doc_log_probs, -100.0), axis=-1)
  return {
    "loss": (-marginal.sum(), count),
    "answer_log_prob": _sum(marginal, real),
    "retrieval_utility": _sum(mlm.retrieval_utility(marginal, null), real),
    "retrieval/null_mass": _sum(doc_probs[:, 0], real),
    "retrieval/entropy": _sum(entropy, real),
  }


def openqa_loss(run: RunConfig) -> LossFn:
  """What goes with the way that passages are found, if any are."""
  losses: dict[str, Callable[[RunConfig], LossFn]] = {
    "dense": _orqa_loss,
    "bm25": _bm25_reader_loss,
    "none": mlm_loss,
  }
  return losses[run.openqa.retriever](run)


def _orqa_loss(run: RunConfig) -> LossFn:
  """ORQA's retriever and reader losses, each over the questions it can serve.

  A question whose beam (or read passages) holds no answer adds nothing to
  that loss. As published, all passage vectors come from the index and get no
  gradient.

  With `openqa.train_documents`, the R read passages are embedded anew by the
  current document tower, and their scores take the place of those by the
  index; so the tower gets a gradient from both losses. The other C - R keep
  the index' vectors, constants as old as the index: to embed them all would
  cost C / R times as much, and they only share out what mass the read ones
  leave. The builder bounds how far the two kinds of scores drift apart.
  """
  embedder = Embedder(run.embedder, run.remat)
  score_spans = _span_scorer(run)

  def loss(params: Params, batch: Batch, rng: jax.Array) -> Sums:
    query_rng, joint_rng, passage_rng = jax.random.split(rng, 3)
    towers = params["retriever"]
    questions = _apply(embedder, towers["query"], query_rng)(batch["query"])
    scores = retrieval.candidate_scores(
      questions, batch["beam_embs"], run.embedder.temperature
    )  # [B, C]
    num_read = batch["gold_spans"].shape[1]
    if run.openqa.train_documents:
      passages = _apply(embedder, towers["document"], passage_rng)(
        batch["passages"]
      ).reshape(questions.shape[0], num_read, -1)  # [B, R, D]
      fresh = retrieval.candidate_scores(
        questions, passages, run.embedder.temperature
      )
      scores = jnp.concatenate([fresh, scores[:, num_read:]], axis=1)
    retriever_ll, in_beam = open_qa.retriever_log_likelihood(
      scores, batch["beam_mask"], batch["beam_has_answer"]
    )
    reader_ll, readable = open_qa.reader_log_likelihood(
      score_spans(params["reader"], batch, joint_rng),
      scores[:, :num_read],
      batch["gold_spans"],
    )
    return {
      "loss": _sum(-(retriever_ll + reader_ll)),
      "retriever_loss": _sum(-retriever_ll, in_beam),
      "reader_loss": _sum(-reader_ll, readable),
      "answer_in_beam": _sum(in_beam),
      "answer_readable": _sum(readable),
    }

  return loss


def _bm25_reader_loss(run: RunConfig) -> LossFn:
  """ORQA's reader loss beside passages whose scores are BM25's, as they are.

  As logits these are calibrated well enough to need no temperature: on SQuAD's
  questions 1.0 gives the right one of five passages its best likelihood.
  """
  score_spans = _span_scorer(run)

  def loss(params: Params, batch: Batch, rng: jax.Array) -> Sums:
    reader_ll, readable = open_qa.reader_log_likelihood(
      score_spans(params["reader"], batch, rng),
      batch["beam_scores"],
      batch["gold_spans"],
    )
    return {
      "loss": _sum(-reader_ll),
      "reader_loss": _sum(-reader_ll, readable),
      "answer_readable": _sum(readable),
    }

  return loss


def _span_scorer(
  run: RunConfig,
) -> Callable[[Params, Batch, jax.Array], jax.Array]:
  """Returns (reader's parameters, batch, rng) -> span scores [B, R, T, W]."""
  reader = span_reader(run)

  def score(params: Params, batch: Batch, rng: jax.Array) -> jax.Array:
    spans = _apply(reader, params, rng)(
      batch["joint"], block_mask=batch["block_mask"]
    )
    return spans.reshape(batch["gold_spans"].shape)

  return score


def _apply(
  module: Any, params: Params, rng: jax.Array
) -> Callable[..., jax.Array]:
  """Returns (rows, **fields) -> the module's output, dropout on."""

  def apply(rows: TokenRows | PackedRows, **fields: jax.Array) -> jax.Array:
    return module.apply(
      {"params": params},
      **rows,
      **fields,
      deterministic=False,
      rngs={"dropout": rng},
    )

  return apply


def _sum(
  values: jax.Array, keep: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  values = values.astype(jnp.float32)
  if keep is None:
    return values.sum(), jnp.asarray(values.size, jnp.float32)
  return jnp.where(keep, values, 0.0).sum(), _f32(keep.sum())


def _f32(value: Any) -> jax.Array:
  return jnp.asarray(value, jnp.float32)


LOSSES: dict[str, Callable[[RunConfig], LossFn]] = {
  "ict": in_batch_loss,
  "dpr": in_batch_loss,
  "mlm": mlm_loss,
  "realm": realm_loss,
  "openqa": openqa_loss,
}
