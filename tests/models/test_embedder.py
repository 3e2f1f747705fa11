# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.models import embedder

BERT = BertConfig(
  vocab_size=20,
  hidden_size=8,
  num_layers=1,
  num_heads=2,
  mlp_size=8,
  max_positions=8,
)


@pytest.mark.parametrize("pooling", ["cls", "pooler"])
def test_head_and_norm_equal_their_definitions(pooling, random_params):
  config = EmbedderConfig(bert=BERT, dim=3, pooling=pooling)
  head = embedder.EmbedderHead(config)
  states = jax.random.normal(jax.random.key(1), (2, 8))
  params = random_params(head, states)

  vectors = head.apply({"params": params}, states, deterministic=True)

  for i, pooled in enumerate(np.asarray(states, np.float64)):
    if pooling == "pooler":
      dense = params["pooler"]
      pooled = np.tanh(pooled @ dense["kernel"] + dense["bias"])
    dense = params["projection"]
    x = pooled @ dense["kernel"] + dense["bias"]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-12)
    expected = x * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(vectors[i], expected, rtol=1e-4, atol=1e-5)


def test_l2_head_gives_unit_vectors_of_the_model_width_in_f32(random_params):
  bert = BertConfig(**vars(BERT) | {"dtype": "bfloat16"})
  module = embedder.Embedder(
    EmbedderConfig(bert=bert, dim=8, pooling="mean", head="l2")
  )
  ids = jnp.arange(12).reshape(3, 4)
  variables = {"params": random_params(module, ids, ids * 0, ids >= 0)}

  vectors = module.apply(variables, ids, ids * 0, ids >= 0, deterministic=True)

  assert set(variables["params"]) == {"bert"}
  assert vectors.dtype == jnp.float32
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("head", ["layer_norm", "l2"])
def test_a_row_without_tokens_gives_a_finite_gradient(head, random_params):
  module = embedder.Embedder(
    EmbedderConfig(bert=BERT, dim=8, pooling="mean", head=head)
  )
  ids = jnp.zeros((2, 4), jnp.int32)
  mask = jnp.zeros((2, 4), bool).at[0].set(True)
  variables = {"params": random_params(module, ids, ids, mask)}

  def first_row(variables):
    vectors = module.apply(variables, ids, ids, mask, deterministic=True)
    return vectors[0].sum()

  grads = jax.jit(jax.grad(first_row))(variables)

  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_zero_vector_has_length_zero_and_a_finite_gradient():
  zero = jnp.zeros((1, 3))

  np.testing.assert_array_equal(embedder.unit_length(zero), zero)
  grad = jax.grad(lambda v: embedder.unit_length(v).sum())(zero)
  assert np.isfinite(grad).all()


def test_training_drops_entries_of_the_vector(random_params):
  module = embedder.EmbedderHead(EmbedderConfig(bert=BERT, dim=64))
  states = jax.random.normal(jax.random.key(1), (2, 8))
  variables = {"params": random_params(module, states)}

  vectors = module.apply(
    variables,
    states,
    deterministic=False,
    rngs={"dropout": jax.random.key(2)},
  )

  assert 0.02 < np.mean(np.asarray(vectors) == 0) < 0.25


def test_tower_is_the_side_s_own_or_the_shared_one():
  assert embedder.tower({"shared": {"a": 1}}, "query") == {"a": 1}
  both = {"query": {"a": 1}, "document": {"a": 2}}
  assert embedder.tower(both, "document") == {"a": 2}
