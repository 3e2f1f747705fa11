# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

from realm_jax.models.dropout import Dropout, random_words


def drop(rate, values, seed=0, deterministic=False):
  rngs = {"dropout": jax.random.key(seed)}
  return Dropout(rate).apply({}, values, deterministic=deterministic, rngs=rngs)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_asked_share_is_dropped_and_the_mean_is_kept(rate):
  values = jnp.ones((100, 999))

  dropped = np.asarray(drop(rate, values))

  # Four standard errors of a share over 99,900 draws.
  error = 4 * (rate * (1 - rate) / dropped.size) ** 0.5
  assert abs((dropped == 0).mean() - rate) < error
  assert abs(dropped.mean() - 1) < error / (1 - rate)
  assert len(np.unique(dropped)) == 2


def test_nothing_is_dropped_when_deterministic_or_at_rate_zero():
  values = jnp.arange(6.0)

  np.testing.assert_array_equal(drop(0.5, values, deterministic=True), values)
  np.testing.assert_array_equal(drop(0.0, values), values)


def test_gradient_passes_where_a_value_was_kept():
  values = jnp.ones((8, 16))

  grad = jax.grad(lambda v: drop(0.5, v).sum())(values)

  np.testing.assert_array_equal(grad, drop(0.5, values))


def bits_of(seed, shape):
  """The 32 bits of each word, one a column: [words, 32]."""
  words = np.asarray(random_words(jax.random.key(seed), shape)).reshape(-1)
  return (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1


def test_every_bit_is_fair_and_independent_of_the_others():
  bits = bits_of(0, (64, 1024)) * 2.0 - 1.0

  limit = 5 / len(bits) ** 0.5  # Five standard errors of a mean of +-1.
  assert np.abs(bits.mean(axis=0)).max() < limit
  products = bits.T @ bits / len(bits)
  assert np.abs(products - np.eye(32)).max() < limit


@pytest.mark.parametrize("distance", [1, 2, 7, 64, 1024])
def test_places_near_each_other_get_unrelated_words(distance):
  bits = bits_of(1, (64, 1024)) * 2.0 - 1.0

  products = bits[distance:].T @ bits[:-distance] / len(bits)

  assert np.abs(products).max() < 5 / len(bits) ** 0.5


@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (5, 1005)])
def test_keys_give_unrelated_words(seeds):
  first, second = (bits_of(seed, (64, 1024)) * 2.0 - 1.0 for seed in seeds)

  assert np.abs(first.T @ second / len(first)).max() < 5 / len(first) ** 0.5


def test_words_repeat_no_more_than_chance():
  words = np.asarray(random_words(jax.random.key(3), (256, 1024)))

  # 2^18 draws from 2^32: n^2 / 2^33 = 8 pairs expected, deviation below 3.
  assert words.size - len(np.unique(words)) < 8 + 5 * 3


def test_sharding_changes_no_word():
  mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
  place = NamedSharding(mesh, PartitionSpec("data"))
  split = jax.jit(lambda rng: random_words(rng, (16, 33)), out_shardings=place)(
    jax.random.key(0)
  )

  np.testing.assert_array_equal(
    split, random_words(jax.random.key(0), (16, 33))
  )
