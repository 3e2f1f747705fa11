# SPDX-License-Identifier: Apache-2.0
"""Dropout whose random numbers are a hash of each value's place.

A cryptographic generator costs a CPU as much as attention itself, to run and
to compile. Here a key comes from JAX's generator, once a call, and a few
integer operations a value, which the compiler fuses into the product, do the
rest. Like JAX's own, the result does not depend on how arrays are sharded.
"""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32
import numpy as np


class Dropout(nn.Module):
  """Zeroes each value with probability `rate`, in 0 <= rate < 1."""

  rate: float

  @nn.compact
  def __call__(
    self, values: Float[Array, "*shape"], *, deterministic: bool
  ) -> Float[Array, "*shape"]:
    """Returns the values that are kept, over the probability of keeping."""
    if deterministic or self.rate == 0:
      return values
    random = random_words(self.make_rng("dropout"), values.shape)
    dropped = np.uint32(round(self.rate * 2**32))
    return jnp.where(random >= dropped, values / (1.0 - self.rate), 0)


def random_words(
  rng: jax.Array, shape: tuple[int, ...]
) -> UInt32[Array, "..."]:
  """Returns uniform 32-bit words: good enough for dropout, for nothing more."""
  key = jax.random.key_data(rng).reshape(-1)
  words = jnp.full(shape, key[0])
  for axis in range(len(shape)):
    place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    words += place * np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
  # Multiply and xor-shift, as hash functions finish; the key's other half
  # goes in between, or two keys would give shifted copies of one sequence.
  words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
  words = (words ^ (words >> 15)) + key[1]
  words = (words ^ (words >> 16)) * np.uint32(0x846CA68B)
  words = (words ^ (words >> 15)) * np.uint32(0x9E3779B1)
  return words ^ (words >> 16)
