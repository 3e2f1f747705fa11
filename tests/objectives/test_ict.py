# SPDX-License-Identifier: Apache-2.0
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
