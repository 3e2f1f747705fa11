# SPDX-License-Identifier: Apache-2.0
"""What lets a tiny model copy: relative positions and the copying init."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realm_jax.config import BertConfig
from realm_jax.models import bert, reader

TINY = {
  "vocab_size": 60,
  "hidden_size": 32,
  "num_layers": 2,
  "num_heads": 4,
  "mlp_size": 64,
  "max_positions": 16,
  "dropout": 0.0,
  "attention_dropout": 0.0,
}
COPYING = {"positions": "relative", "init": "copying"}
MASK_ID, SEP_ID = 4, 3
MASKED = 2  # Place of the mask in a copying task's row.


def copying_task(steps, rows):
  """Four tokens in a row, one masked; a passage that has them; the token."""
  rng = np.random.default_rng(0)
  ids = np.empty((steps, rows, 15), np.int32)
  targets = np.empty((steps, rows), np.int32)
  for place in np.ndindex(steps, rows):
    passage = rng.permutation(np.arange(5, TINY["vocab_size"]))[:10]
    at = rng.integers(2, 8)
    query = passage[at - 2 : at + 2].copy()
    targets[place] = query[MASKED]
    query[MASKED] = MASK_ID
    ids[place] = [*query, SEP_ID, *passage]
  return jnp.asarray(ids), jnp.asarray(targets)


def copying_accuracy(config, steps):
  """How often the masked token is right in the last tenth of training."""
  encoder = reader.KnowledgeAugmentedEncoder(config)
  batches = copying_task(steps, 64)
  positions = jnp.full((64, 1), MASKED, jnp.int32)
  optimizer = optax.adam(3e-3)

  def logits(params, ids):
    rows = (ids, jnp.zeros_like(ids), ids >= 0, positions)
    return encoder.apply({"params": params}, *rows, deterministic=True)[:, 0]

  def loss(params, ids, targets):
    found = logits(params, ids)
    losses = optax.softmax_cross_entropy_with_integer_labels(found, targets)
    return losses.mean(), (jnp.argmax(found, axis=-1) == targets).mean()

  def step(carry, batch):
    params, state = carry
    (_, right), grads = jax.value_and_grad(loss, has_aux=True)(params, *batch)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), right

  @jax.jit
  def train(rng):
    ids = batches[0][0]
    rows = (ids, jnp.zeros_like(ids), ids >= 0, positions)
    params = encoder.init(rng, *rows, deterministic=True)["params"]
    return jax.lax.scan(step, (params, optimizer.init(params)), batches)[1]

  return np.asarray(train(jax.random.key(0)))[-steps // 10 :].mean()


def test_the_options_learn_to_copy_where_bert_does_not():
  with_options = copying_accuracy(BertConfig(**TINY, **COPYING), steps=200)
  without = copying_accuracy(BertConfig(**TINY), steps=200)
  assert with_options > 0.95
  assert without < 0.15


def init_layer(config, layer, length=12):
  module = bert.SelfAttention(config, layer)
  states = jax.random.normal(jax.random.key(1), (length, 32))  # One row's.
  mask = jnp.ones((1, length), bool)
  init = functools.partial(module.init, deterministic=True)
  variables = jax.jit(init)(jax.random.key(0), states, mask)
  output = module.apply(variables, states, mask, deterministic=True)
  return variables["params"], np.asarray(states), np.asarray(output)


def test_heads_of_the_first_layer_hand_on_one_neighbour_each():
  config = BertConfig(**TINY | {"num_heads": 8}, **COPYING)
  _, states, output = init_layer(config, layer=0)
  inner = np.arange(6, 10)  # No neighbour is past an end.
  for head, offset in enumerate(bert.COPY_OFFSETS):
    own = slice(4 * head, 4 * head + 4)
    expected = states[inner + offset, own]
    # Off by the kernels' noise and the attention that goes elsewhere.
    np.testing.assert_allclose(output[inner, own], expected, atol=0.6)
    others = states[inner, own]
    assert np.abs(output[inner, own] - others).mean() > 0.6


def test_every_later_head_compares_what_all_first_heads_gathered():
  config = BertConfig(**TINY, **COPYING)
  params, _, _ = init_layer(config, layer=1)
  for name in ("query", "key"):
    kernel = np.asarray(params[name]["kernel"])
    picked = np.argmax(kernel, axis=0)  # The column each output starts from.
    np.testing.assert_array_equal(np.sort(picked), np.arange(32))
    for head in picked.reshape(4, 8) // 8:
      np.testing.assert_array_equal(np.unique(head), np.arange(4))


@pytest.mark.parametrize("layer", [0, 1])
def test_without_the_option_every_kernel_starts_as_berts(layer):
  params, _, _ = init_layer(BertConfig(**TINY, positions="relative"), layer)
  for leaf in jax.tree.leaves(params):
    assert np.abs(leaf).max() < 0.02 * 6
