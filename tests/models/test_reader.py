# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from realm_jax.models import reader
from realm_jax.models.import_bert import from_tensors


def test_logits_are_those_of_the_asked_positions(golden, golden_config):
  case = golden("bert_masked_lm")
  config = golden_config()
  imported = from_tensors(case.weights, config, "golden")
  positions = jnp.array([[5, 2], [0, 6], [0, 0]])

  logits = reader.KnowledgeAugmentedEncoder(config).apply(
    {"params": imported}, **case.rows(), positions=positions, deterministic=True
  )

  everywhere = case.recorded["logits"]
  for i, places in enumerate(positions):
    real = case.real[i, places]
    np.testing.assert_allclose(
      logits[i][real], everywhere[i, places][real], atol=1e-5
    )


def test_a_span_that_leaves_the_block_is_no_candidate(
  golden_config, random_params
):
  module = reader.SpanReader(golden_config(), max_span=3, span_width=4)
  ids = jnp.ones((1, 6), jnp.int32)
  block = jnp.array([[False, False, True, True, True, False]])
  variables = {"params": random_params(module, ids, ids, ids > 0, block)}

  scores = module.apply(variables, ids, ids, ids > 0, block, deterministic=True)

  allowed = np.zeros((6, 3), bool)
  for start in range(6):
    for width in range(3):
      places = range(start, start + width + 1)
      allowed[start, width] = all(2 <= t <= 4 for t in places)
  np.testing.assert_array_equal(scores[0] > reader.OUTSIDE_BLOCK, allowed)
  assert scores.dtype == jnp.float32


def test_shifted_looks_ahead_and_is_zero_past_the_end():
  values = jnp.arange(1.0, 4.0)[None]

  np.testing.assert_array_equal(
    reader.shifted(values, 2)[0], [[1, 2], [2, 3], [3, 0]]
  )
