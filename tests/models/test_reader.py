# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models import reader
from realm_jax.models.import_bert import from_tensors
from realm_jax.objectives import mlm


def all_positions(rows):
  n, length = rows["ids"].shape
  return jnp.broadcast_to(jnp.arange(length)[None], (n, length))


def encode(case, config):
  tensors = case.part("realm.", "bert.", "cls.")
  imported = from_tensors(tensors, config, "golden")
  params = {name: imported[name] for name in ("bert", "mlm_head")}
  return reader.KnowledgeAugmentedEncoder(config).apply(
    {"params": params},
    **case.rows,
    positions=all_positions(case.rows),
    deterministic=True,
  )


@pytest.mark.parametrize(
  ("name", "activation"),
  [
    ("bert_masked_lm", "gelu"),
    ("bert_pretraining", "gelu_tanh"),
    ("realm_encoder", "gelu_tanh"),
  ],
)
def test_logits_equal_hugging_face(name, activation, golden, golden_config):
  case = golden(name)

  logits = encode(case, golden_config(activation=activation))

  np.testing.assert_allclose(
    logits[case.real], case.recorded["logits"][case.real], atol=1e-5
  )


def test_marginal_loss_equals_hugging_face_realm(golden, golden_config):
  case = golden("realm_encoder")
  logits = encode(case, golden_config(activation="gelu_tanh"))
  keep = jnp.asarray(case.recorded["mlm_mask"] == 1)  # [B=1, T]
  labels = jnp.broadcast_to(case.recorded["labels"], logits.shape[:2])

  log_likelihood = mlm.marginal_log_likelihood(
    jax.nn.log_softmax(jnp.asarray(case.recorded["scores"]), axis=-1),
    mlm.token_log_probs(logits, labels)[None],
    keep,
    "per_mask",
  )

  np.testing.assert_allclose(
    -log_likelihood[0] / keep.sum(), case.recorded["loss"], rtol=1e-5
  )


def test_logits_are_those_of_the_asked_positions(golden, golden_config):
  case = golden("bert_masked_lm")
  config = golden_config()
  imported = from_tensors(case.weights, config, "golden")
  positions = jnp.array([[5, 2], [0, 6], [0, 0]])

  logits = reader.KnowledgeAugmentedEncoder(config).apply(
    {"params": imported}, **case.rows, positions=positions, deterministic=True
  )

  everywhere = np.asarray(encode(case, config))
  for i, places in enumerate(positions):
    np.testing.assert_allclose(logits[i], everywhere[i, places], atol=1e-6)


def test_span_scores_equal_hugging_face_realm(golden, golden_config):
  case = golden("realm_reader")
  config = golden_config(activation="gelu_tanh")
  weights = case.weights
  imported = from_tensors(case.part("realm."), config, "golden")
  params = {
    "bert": imported["bert"],
    "span_head": {
      "ends": {
        "kernel": weights["qa_outputs.dense_intermediate.weight"].T,
        "bias": weights["qa_outputs.dense_intermediate.bias"],
      },
      "norm": {
        "scale": weights["qa_outputs.layer_normalization.weight"],
        "bias": weights["qa_outputs.layer_normalization.bias"],
      },
      "score": {
        "kernel": weights["qa_outputs.dense_output.weight"].T,
        "bias": weights["qa_outputs.dense_output.bias"],
      },
    },
  }
  block = case.recorded["block_mask"]

  scores = reader.SpanReader(config, max_span=3, span_width=6).apply(
    {"params": params},
    **case.rows,
    block_mask=jnp.asarray(block),
    deterministic=True,
  )

  starts, ends = case.recorded["starts"], case.recorded["ends"]
  inside = block[:, starts] & block[:, ends]
  np.testing.assert_allclose(
    scores[:, starts, ends - starts][inside],
    case.recorded["scores"][inside],
    atol=1e-5,
  )
  assert inside.any()
  assert (scores > reader.OUTSIDE_BLOCK).sum() == inside.sum()


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
