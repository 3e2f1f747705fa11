# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.objectives import retrieval


def test_scores_are_inner_products_over_the_temperature():
  rng = np.random.default_rng(0)
  queries = rng.normal(size=(3, 5)).astype(np.float32)
  passages = rng.normal(size=(3, 4, 5)).astype(np.float32)
  scores = retrieval.candidate_scores(
    jnp.asarray(queries), jnp.asarray(passages), 2.0
  )
  slow = [
    [q @ z / 2.0 for z in zs] for q, zs in zip(queries, passages, strict=True)
  ]
  np.testing.assert_allclose(scores, slow, rtol=1e-5)


def test_probabilities_sum_to_one_over_the_kept_candidates():
  scores = jnp.array([[1.0, 2.0, 50.0], [0.0, 0.0, 0.0]])
  keep = jnp.array([[True, True, False], [True, True, True]])
  probs = jnp.exp(retrieval.candidate_log_probs(scores, keep))
  odds = np.exp(1.0)
  np.testing.assert_allclose(
    probs, [[1 / (1 + odds), odds / (1 + odds), 0], [1 / 3] * 3], rtol=1e-5
  )


def test_a_dropped_candidate_gets_no_gradient():
  keep = jnp.array([[True, False, True]])

  def first(scores):
    return retrieval.candidate_log_probs(scores, keep)[0, 0]

  grad = jax.grad(first)(jnp.array([[0.3, 0.2, 0.1]]))
  assert grad[0, 1] == 0.0
  assert np.all(np.isfinite(grad))
