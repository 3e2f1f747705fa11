# SPDX-License-Identifier: Apache-2.0
"""Dropout from one random byte a value instead of a 32-bit float.

On a CPU the random numbers of attention's dropout cost as much as attention
itself; a byte each makes that a fifth.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dropout(nn.Module):
  """Zeroes values with probability `rate`, rounded to a multiple of 1/256."""

  rate: float

  @nn.compact
  def __call__(
    self, values: Float[Array, "*shape"], *, deterministic: bool
  ) -> Float[Array, "*shape"]:
    """Returns the values that are kept over the probability of keeping."""
    dropped = round(256 * self.rate)
    if deterministic or dropped == 0:
      return values
    random = random_bytes(self.make_rng("dropout"), values.shape)
    scale = 256 / (256 - dropped)
    return jnp.where(random >= dropped, values * scale, 0)


def random_bytes(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns u8 of the shape, whose leading axes may be sharded."""
  words = -(-shape[-1] // 4)
  bits = jax.random.bits(rng, (*shape[:-1], words), jnp.uint32)
  random = jax.lax.bitcast_convert_type(bits, jnp.uint8)  # [..., words, 4]
  return random.reshape(*shape[:-1], 4 * words)[..., : shape[-1]]
