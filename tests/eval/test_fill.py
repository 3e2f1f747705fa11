# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.eval import fill


def _log(probs):
  return jnp.log(jnp.asarray(probs, jnp.float32))


def test_the_chosen_span_has_the_greatest_marginal_of_all_proposals():
  b, k, m, v = 4, 3, 2, 5
  rng = np.random.default_rng(0)
  doc_probs = rng.dirichlet(np.ones(k), size=b)
  probs = rng.dirichlet(np.full(v, 0.3), size=(b, k, m))
  keep = jnp.array([[True, True], [True, False], [True, True], [True, False]])

  proposals, best = fill.choose_span(_log(doc_probs), _log(probs), keep)

  for i in range(b):
    length = int(keep[i].sum())
    marginals = {
      span: sum(
        doc_probs[i, z]
        * np.prod([probs[i, z, j, span[j]] for j in range(length)])
        for z in range(k)
      )
      for span in itertools.product(range(v), repeat=length)
    }
    asked = [tuple(np.asarray(p[:length]).tolist()) for p in proposals[i]]
    for z in range(k):
      assert asked[z] == tuple(probs[i, z, :length].argmax(-1).tolist())
    assert marginals[asked[int(best[i])]] == max(marginals[a] for a in asked)


def test_the_names_that_two_passages_give_are_not_mixed():
  # Of "0 1" (p = .4) and "2 3" and "2 4" (.3 each), "2 1" has the likeliest
  # piece at each place, and no passage says it.
  doc_probs = [[0.4, 0.3, 0.3]]
  sure = np.eye(5) * 0.96 + 0.008
  probs = sure[np.array([[[0, 1], [2, 3], [2, 4]]])]  # [B=1, K=3, M=2, V=5]

  proposals, best = fill.choose_span(
    _log(doc_probs), _log(probs), jnp.ones((1, 2), bool)
  )

  by_place = jnp.einsum("bk,bkmv->bmv", jnp.asarray(doc_probs), probs)
  assert by_place.argmax(-1).tolist() == [[2, 1]]
  assert proposals[0, best[0]].tolist() == [0, 1]


def test_an_uncertain_passage_is_outvoted_by_two_that_agree():
  doc_probs = [[0.4, 0.3, 0.3]]
  sure = np.eye(3) * 0.94 + 0.02
  probs = sure[np.array([[[0], [1], [1]]])]
  proposals, best = fill.choose_span(
    _log(doc_probs), _log(probs), jnp.ones((1, 1), bool)
  )
  assert proposals[0, best[0]].tolist() == [1]


def test_choosing_a_span_needs_no_python_values():
  jitted = jax.jit(fill.choose_span)
  proposals, best = jitted(
    jnp.zeros((2, 3)), jnp.zeros((2, 3, 4, 5)), jnp.ones((2, 4), bool)
  )
  assert proposals.shape == (2, 3, 4) and best.shape == (2,)
