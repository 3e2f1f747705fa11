# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.objectives import ict


def test_rows_are_softmaxes_over_the_batch_s_passages():
  rng = np.random.default_rng(0)
  queries = rng.normal(size=(4, 6)).astype(np.float32)
  passages = rng.normal(size=(4, 6)).astype(np.float32)
  log_probs = ict.in_batch_log_probs(
    jnp.asarray(queries), jnp.asarray(passages), 3.0
  )
  for i in range(4):
    exps = np.exp([queries[i] @ z / 3.0 for z in passages])
    np.testing.assert_allclose(np.exp(log_probs[i]), exps / exps.sum(), 1e-5)


def test_further_passages_of_a_query_are_everyone_s_negatives():
  rng = np.random.default_rng(0)
  queries = rng.normal(size=(2, 6)).astype(np.float32)
  passages = rng.normal(size=(6, 6)).astype(np.float32)
  ids = jnp.array([4, 5, 4, 6, 4, 7])  # Own ones: 4 and 6.
  log_probs = ict.in_batch_log_probs(
    jnp.asarray(queries), jnp.asarray(passages), 2.0, ids
  )
  exps = np.exp(queries @ passages.T / 2.0)
  exps[0, [2, 4]] = 0.0  # Copies of its own; for the other, a wrong passage.
  np.testing.assert_allclose(
    np.exp(log_probs), exps / exps.sum(axis=1, keepdims=True), 1e-5
  )
  assert ict.own_passages(2, 6).tolist() == [0, 3]


def test_several_queries_have_one_passage_as_their_own():
  assert ict.own_passages(6, 2, 3).tolist() == [0, 0, 0, 1, 1, 1]
  log_probs = ict.in_batch_log_probs(
    jnp.ones((6, 2)), jnp.zeros((2, 2)), 1.0, jnp.array([4, 5]), 3
  )
  np.testing.assert_allclose(np.exp(log_probs), 1 / 2, rtol=1e-6)


def test_several_queries_share_their_passage_and_its_further_ones():
  """Both groups of 3 have 2 passages, and the second's further is 4 again."""
  assert ict.own_passages(6, 4, 3).tolist() == [0, 0, 0, 2, 2, 2]
  log_probs = ict.in_batch_log_probs(
    jnp.ones((6, 2)), jnp.zeros((4, 2)), 1.0, jnp.array([4, 5, 6, 4]), 3
  )
  thirds, quarters = [1 / 3, 1 / 3, 1 / 3, 0], [1 / 4] * 4
  np.testing.assert_allclose(
    np.exp(log_probs), [thirds] * 3 + [quarters] * 3, rtol=1e-6
  )


def test_other_copies_of_the_own_passage_are_no_negatives():
  """Of four equal scores, queries 0 and 2 see three: 2 and 0 hold a copy."""
  ids = jnp.array([7, 8, 7, 9])

  def loss(passages):
    log_probs = ict.in_batch_log_probs(jnp.ones((4, 2)), passages, 1.0, ids)
    return -jnp.diagonal(log_probs).sum(), log_probs

  gradient, log_probs = jax.grad(loss, has_aux=True)(jnp.zeros((4, 2)))
  np.testing.assert_allclose(
    np.exp(log_probs),
    [
      [1 / 3, 1 / 3, 0, 1 / 3],
      [1 / 4, 1 / 4, 1 / 4, 1 / 4],
      [0, 1 / 3, 1 / 3, 1 / 3],
      [1 / 4, 1 / 4, 1 / 4, 1 / 4],
    ],
    rtol=1e-6,
  )
  # p - 1 for the own query, p for others, and nothing for the other copy's.
  np.testing.assert_allclose(
    gradient[:, 0],
    [
      1 / 3 - 1 + 1 / 4 + 1 / 4,
      1 / 4 - 1 + 1 / 3 + 1 / 3 + 1 / 4,
      1 / 3 - 1 + 1 / 4 + 1 / 4,
      1 / 4 - 1 + 1 / 3 + 1 / 3 + 1 / 4,
    ],
    rtol=1e-5,
  )
