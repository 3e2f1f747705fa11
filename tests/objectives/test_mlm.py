# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.objectives import mlm, retrieval


def random_case(seed=0, queries=4, candidates=3, masks=5):
  rng = np.random.default_rng(seed)
  scores = rng.normal(size=(queries, candidates)).astype(np.float32)
  log_probs = -rng.exponential(size=(queries, candidates, masks))
  keep = rng.random((queries, masks)) < 0.7
  keep[:, 0] = True
  return scores, log_probs.astype(np.float32), keep


def slow_marginal(scores, log_probs, keep, marginal):
  """Plain sums of probabilities in float64."""
  out = []
  for query, row in enumerate(scores.astype(np.float64)):
    p_z = np.exp(row) / np.exp(row).sum()
    p_y = np.exp(log_probs[query].astype(np.float64))[:, keep[query]]
    if marginal == "joint":
      out.append(np.log((p_z * p_y.prod(axis=1)).sum()))
    else:
      out.append(np.log((p_z[:, None] * p_y).sum(axis=0)).sum())
  return np.array(out)


def marginal_of(scores, log_probs, keep, marginal):
  doc = retrieval.candidate_log_probs(
    jnp.asarray(scores), jnp.ones(scores.shape, bool)
  )
  return mlm.marginal_log_likelihood(
    doc, jnp.asarray(log_probs), jnp.asarray(keep), marginal
  )


@pytest.mark.parametrize("marginal", ["per_mask", "joint"])
def test_marginal_equals_the_sum_of_probabilities(marginal):
  scores, log_probs, keep = random_case()
  fast = marginal_of(scores, log_probs, keep, marginal)
  slow = slow_marginal(scores, log_probs, keep, marginal)
  np.testing.assert_allclose(fast, slow, rtol=1e-5)


def test_both_marginals_agree_on_spans_of_one_piece():
  scores, log_probs, keep = random_case(masks=1)
  np.testing.assert_allclose(
    marginal_of(scores, log_probs, keep, "joint"),
    marginal_of(scores, log_probs, keep, "per_mask"),
    rtol=1e-6,
  )


def test_gradient_of_the_joint_marginal_is_the_paper_s_closed_form():
  # REALM section 3.3: d log p(y|x) / d f(x,z)
  #   = (p(y|z,x) / p(y|x) - 1) p(z|x).
  scores, log_probs, keep = random_case(seed=1)
  grad = jax.grad(lambda s: marginal_of(s, log_probs, keep, "joint").sum())(
    scores
  )
  p_z = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
  p_y = np.exp(np.where(keep[:, None], log_probs, 0).sum(axis=-1))
  p_marginal = (p_z * p_y).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    grad, (p_y / p_marginal - 1) * p_z, rtol=1e-4, atol=1e-6
  )


def test_gradient_of_the_per_mask_marginal_is_a_sum_of_closed_forms():
  scores, log_probs, keep = random_case(seed=2)
  grad = jax.grad(lambda s: marginal_of(s, log_probs, keep, "per_mask").sum())(
    scores
  )
  p_z = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
  p_y = np.exp(log_probs)  # [B, K, M]
  p_marginal = (p_z[:, :, None] * p_y).sum(axis=1, keepdims=True)
  by_mask = (p_y / p_marginal - 1) * p_z[:, :, None] * keep[:, None, :]
  np.testing.assert_allclose(grad, by_mask.sum(axis=-1), rtol=1e-4, atol=1e-6)


def test_a_padded_mask_slot_changes_nothing():
  scores, log_probs, keep = random_case(seed=3)
  other = np.where(keep[:, None, :], log_probs, -77.0)
  for marginal in ("per_mask", "joint"):
    np.testing.assert_array_equal(
      marginal_of(scores, log_probs, keep, marginal),
      marginal_of(scores, other.astype(np.float32), keep, marginal),
    )


def test_token_log_probs_equal_a_full_softmax():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 7)).astype(np.float32)
  targets = rng.integers(0, 7, (2, 3)).astype(np.int32)
  probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  slow = np.log(np.take_along_axis(probs, targets[..., None], -1)[..., 0])
  np.testing.assert_allclose(
    mlm.token_log_probs(jnp.asarray(logits), jnp.asarray(targets)),
    slow,
    rtol=1e-5,
  )


def test_utility_is_zero_when_only_the_null_document_is_retrieved():
  log_probs = jnp.array([[[-0.5, -2.0]]])  # [B=1, K=1, M=2]
  keep = jnp.ones((1, 2), bool)
  marginal = mlm.marginal_log_likelihood(
    jnp.zeros((1, 1)), log_probs, keep, "joint"
  )
  null = mlm.span_log_likelihood(log_probs[:, 0], keep)
  assert mlm.retrieval_utility(marginal, null)[0] == 0.0
