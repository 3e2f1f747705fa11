# SPDX-License-Identifier: Apache-2.0
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import BertConfig
from realm_jax.models import bert

TINY = {
  "vocab_size": 30,
  "hidden_size": 8,
  "num_layers": 2,
  "num_heads": 2,
  "mlp_size": 12,
  "max_positions": 10,
}
VARIANTS = {
  "bert": {},
  "tanh_gelu": {"activation": "gelu_tanh"},
  "relu": {"activation": "relu"},
  "copying": {"norm": "pre", "positions": "relative", "init": "copying"},
}


def make_rows():
  rng = np.random.default_rng(0)
  mask = np.arange(9)[None] < np.array([9, 4, 1])[:, None]
  ids = rng.integers(1, 30, mask.shape) * mask
  segments = rng.integers(0, 2, mask.shape) * mask
  return jnp.int32(ids), jnp.int32(segments), jnp.asarray(mask)


def numpy_activation(name, x):
  if name == "relu":
    return np.maximum(x, 0)
  if name == "gelu_tanh":
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def numpy_dense(p, x):
  return x @ p["kernel"] + p["bias"]


def numpy_norm(p, x):
  centred = x - x.mean(-1, keepdims=True)
  variance = (centred**2).mean(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-12) * p["scale"] + p["bias"]


def slow_bucket(offset):
  if offset > 0:
    return 16 + slow_bucket(-offset)
  distance = -offset
  if distance < 8:
    return distance
  return min(15, 8 + int(math.log(distance / 8) / math.log(16) * 8))


def numpy_attention(p, x, mask, heads):
  """One row, one head, one query at a time."""
  length, width = x.shape
  size = width // heads
  query, key, value = (numpy_dense(p[k], x) for k in ("query", "key", "value"))
  context = np.zeros_like(x)
  for head in range(heads):
    part = slice(head * size, (head + 1) * size)
    for t in range(length):
      logits = key[mask, part] @ query[t, part] / math.sqrt(size)
      if "position_bias" in p:
        table = p["position_bias"]["embedding"]
        offsets = np.flatnonzero(mask) - t
        logits += [table[slow_bucket(o), head] for o in offsets]
      weights = np.exp(logits - logits.max())
      context[t, part] = weights / weights.sum() @ value[mask, part]
  return numpy_dense(p["output"], context)


def numpy_bert(p, config, ids, segments, mask):
  """One row, without anything of the module under test."""
  x = p["token_embed"]["embedding"][ids]
  x = x + p["segment_embed"]["embedding"][segments]
  if config.positions == "absolute":
    x = x + p["position_embed"]["embedding"][: len(ids)]
  x = numpy_norm(p["embed_norm"], x)
  for i in range(config.num_layers):
    layer = p[f"layers_{i}"]

    def attend(x, layer=layer):
      return numpy_attention(layer["attention"], x, mask, config.num_heads)

    def mlp(x, layer=layer):
      up = numpy_dense(layer["mlp_up"], x)
      return numpy_dense(
        layer["mlp_down"], numpy_activation(config.activation, up)
      )

    if config.norm == "pre":
      x = x + attend(numpy_norm(layer["attention_norm"], x))
      x = x + mlp(numpy_norm(layer["mlp_norm"], x))
    else:
      x = numpy_norm(layer["attention_norm"], x + attend(x))
      x = numpy_norm(layer["mlp_norm"], x + mlp(x))
  return numpy_norm(p["final_norm"], x) if config.norm == "pre" else x


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_equal_a_slow_numpy_forward(variant, random_params):
  config = BertConfig(**TINY, **VARIANTS[variant])
  module = bert.BertEncoder(config)
  rows = make_rows()
  params = random_params(module, *rows)

  states = module.apply({"params": params}, *rows, deterministic=True)

  slow = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  for i, row in enumerate(zip(*map(np.asarray, rows), strict=True)):
    expected = numpy_bert(slow, config, *row)
    np.testing.assert_allclose(states[i], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("variant", ["bert", "copying"])
def test_padding_changes_no_real_token(variant, random_params):
  module = bert.BertEncoder(BertConfig(**TINY, **VARIANTS[variant]))
  ids, segments, mask = make_rows()
  params = random_params(module, ids, segments, mask)

  def states(ids, segments, mask):
    return module.apply(
      {"params": params}, ids, segments, mask, deterministic=True
    )

  junk = jnp.where(mask, ids, 17)
  np.testing.assert_allclose(
    states(junk, segments, mask)[1, :4],
    states(ids[1:2, :4], segments[1:2, :4], mask[1:2, :4])[0],
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("variant", ["bert", "copying"])
def test_a_row_without_tokens_gives_finite_states_and_gradients(
  variant, random_params
):
  module = bert.BertEncoder(BertConfig(**TINY, **VARIANTS[variant]))
  empty = jnp.zeros((2, 5), jnp.int32)
  mask = jnp.zeros((2, 5), bool)
  variables = {"params": random_params(module, empty, empty, mask)}

  def total(variables):
    return module.apply(variables, empty, empty, mask, deterministic=True).sum()

  value, grads = jax.jit(jax.value_and_grad(total))(variables)

  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_relative_positions_make_states_independent_of_the_place(random_params):
  module = bert.BertEncoder(BertConfig(**TINY, **VARIANTS["copying"]))
  ids = jnp.arange(1, 7)[None]
  zeros = jnp.zeros_like(ids)
  variables = {"params": random_params(module, ids, zeros, ids > 0)}
  later = jnp.pad(ids, [(0, 0), (3, 0)])

  first = module.apply(variables, ids, zeros, ids > 0, deterministic=True)
  second = module.apply(
    variables, later, jnp.zeros_like(later), later > 0, deterministic=True
  )

  np.testing.assert_allclose(first[0], second[0, 3:], rtol=1e-5, atol=1e-5)


def test_position_buckets_are_exact_nearby_and_wider_far_away():
  offsets = np.arange(-400, 401)
  buckets = bert.position_bucket(offsets)

  assert buckets.tolist() == [slow_bucket(int(o)) for o in offsets]
  assert len(set(buckets[np.abs(offsets) < 8])) == 15
  assert buckets.min() == 0
  assert buckets.max() == bert.NUM_BUCKETS - 1


def test_copying_heads_of_the_first_layer_start_at_their_offsets():
  config = BertConfig(**TINY | VARIANTS["copying"] | {"num_heads": 4})
  rows = make_rows()
  init = functools.partial(bert.BertEncoder(config).init, deterministic=True)
  params = jax.jit(init)(jax.random.key(0), *rows)["params"]
  first = params["layers_0"]["attention"]["position_bias"]["embedding"]
  second = params["layers_1"]["attention"]["position_bias"]["embedding"]

  favoured = bert.position_bucket(np.array([-1, -2, 1, -3]))
  np.testing.assert_array_equal(np.argmax(first, axis=0), favoured)
  assert np.abs(second).max() < 1.0


def test_activations_follow_the_config_and_parameters_stay_f32():
  module = bert.BertEncoder(BertConfig(**TINY, dtype="bfloat16"))
  rows = make_rows()
  init = functools.partial(module.init, deterministic=True)
  variables = jax.jit(init)(jax.random.key(0), *rows)

  states = module.apply(variables, *rows, deterministic=True)

  exact = bert.BertEncoder(BertConfig(**TINY)).apply(
    variables, *rows, deterministic=True
  )
  assert states.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype("float32")
  }
  np.testing.assert_allclose(
    states.astype(jnp.float32), exact, rtol=0.1, atol=0.05
  )


def test_dropout_is_drawn_from_the_rng_and_only_when_not_deterministic(
  random_params,
):
  module = bert.BertEncoder(BertConfig(**TINY))
  rows = make_rows()
  variables = {"params": random_params(module, *rows)}

  @jax.jit
  def states(seed):
    return module.apply(
      variables,
      *rows,
      deterministic=False,
      rngs={"dropout": jax.random.key(seed)},
    )

  np.testing.assert_array_equal(states(1), states(1))
  assert not np.allclose(states(1), states(2))


def test_rows_longer_than_the_positions_are_refused():
  module = bert.BertEncoder(BertConfig(**TINY))
  ids = jnp.zeros((1, 11), jnp.int32)

  with pytest.raises(ValueError, match=r"11 tokens exceed .*\(10\)"):
    module.init(jax.random.key(0), ids, ids, ids > 0, deterministic=True)
