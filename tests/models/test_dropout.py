# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models.dropout import Dropout, random_bytes


def drop(rate, values, seed=0, deterministic=False):
  rngs = {"dropout": jax.random.key(seed)}
  return Dropout(rate).apply({}, values, deterministic=deterministic, rngs=rngs)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_asked_share_is_dropped_and_the_mean_is_kept(rate):
  values = jnp.ones((100, 999))

  dropped = np.asarray(drop(rate, values))

  # Four standard errors of a share over 99,900 draws, and rounding to 1/256.
  error = 4 * (rate * (1 - rate) / dropped.size) ** 0.5 + 1 / 512
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


def test_bytes_are_uniform_and_of_every_length():
  random = np.asarray(random_bytes(jax.random.key(0), (512, 129)))

  assert random.shape == (512, 129)
  counts = np.bincount(random.ravel(), minlength=256)
  # Poisson: 258 expected of each, standard deviation 16.
  assert np.abs(counts - random.size / 256).max() < 5 * 16
