# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.objectives import open_qa


def test_retriever_likelihood_is_the_mass_on_right_passages_of_the_beam():
  scores = jnp.array([[0.0, 1.0, 2.0, 99.0]])
  beam = jnp.array([[True, True, True, False]])
  right = jnp.array([[True, False, True, False]])
  log_mass, found = open_qa.retriever_log_likelihood(scores, beam, right)
  exps = np.exp([0.0, 1.0, 2.0])
  np.testing.assert_allclose(
    log_mass, [np.log((exps[0] + exps[2]) / exps.sum())], rtol=1e-5
  )
  assert found.tolist() == [True]


def test_reader_softmax_runs_over_all_spans_of_all_passages():
  rng = np.random.default_rng(0)
  spans = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
  passages = rng.normal(size=(2, 3)).astype(np.float32)
  gold = rng.random((2, 3, 4, 2)) < 0.2
  log_mass, _ = open_qa.reader_log_likelihood(
    jnp.asarray(spans), jnp.asarray(passages), jnp.asarray(gold)
  )
  for i in range(2):
    exps = np.exp(spans[i] + passages[i][:, None, None])
    slow = np.log(exps[gold[i]].sum() / exps.sum())
    np.testing.assert_allclose(log_mass[i], slow, rtol=1e-4)


def test_a_question_without_a_right_passage_has_no_loss_and_no_gradient():
  beam = jnp.ones((1, 3), bool)
  none = jnp.zeros((1, 3), bool)

  def loss(scores):
    return open_qa.retriever_log_likelihood(scores, beam, none)[0].sum()

  value, grad = jax.value_and_grad(loss)(jnp.array([[1.0, 2.0, 3.0]]))
  assert value == 0.0
  np.testing.assert_array_equal(grad, np.zeros((1, 3)))
