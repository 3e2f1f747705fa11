# SPDX-License-Identifier: Apache-2.0
"""Where packed rows (`shapes.PackedRows`) begin and which place is whose.

Plain rows are the case of one row a line, which fills it from the start:
`starts` and `order` are then left out.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def places(
  mask: Int[Array, "lines L"], starts: Int[Array, "lines S"]
) -> Int[Array, "lines L"]:
  """Each token's place in its own row, from 0; 0 for padding."""
  own_start = jnp.take_along_axis(starts, jnp.maximum(mask - 1, 0), axis=1)
  return jnp.where(mask > 0, jnp.arange(mask.shape[1])[None] - own_start, 0)


def first_states(
  states: Float[Array, "lines L H"], starts: Int[Array, "lines S"] | None
) -> Float[Array, "lines S H"]:
  """The states of each row's first token, [CLS]."""
  if starts is None:
    return states[:, :1]
  return jnp.take_along_axis(states, starts[:, :, None], axis=1)


def mean_states(
  states: Float[Array, "lines L H"],
  mask: Bool[Array, "lines L"] | Int[Array, "lines L"],
  starts: Int[Array, "lines S"] | None,
) -> Float[Array, "lines S H"]:
  """Means over each row's tokens, f32; zero for a row without any."""
  slots = 1 if starts is None else starts.shape[1]
  rows = jnp.arange(1, slots + 1)[None, :, None]
  weights = (mask.astype(jnp.int32)[:, None, :] == rows).astype(jnp.float32)
  weights /= jnp.maximum(weights.sum(axis=2, keepdims=True), 1.0)
  return jnp.einsum("lth,lst->lsh", states.astype(jnp.float32), weights)


def states_at(
  states: Float[Array, "lines L H"],
  positions: Int[Array, "n M"],
  starts: Int[Array, "lines S"] | None,
  order: Int[Array, "n"] | None,
) -> Float[Array, "n M H"]:
  """The states at `positions`, which count from the start of their row.

  Past a row's end some state of its line is given.
  """
  if starts is None or order is None:
    return jnp.take_along_axis(states, positions[:, :, None], axis=1)
  lines, slots = starts.shape
  on_lines = jnp.zeros((lines * slots, positions.shape[1]), positions.dtype)
  on_lines = on_lines.at[order].set(positions) + starts.reshape(-1, 1)
  on_lines = jnp.minimum(on_lines, states.shape[1] - 1)
  on_lines = on_lines.reshape(lines, -1, 1)  # [lines, S * M, 1]
  found = jnp.take_along_axis(states, on_lines, axis=1)
  shape = (lines, slots, positions.shape[1], states.shape[2])
  return in_order(found.reshape(shape), order)


def in_order(
  values: Float[Array, "lines S *rest"], order: Int[Array, "n"] | None
) -> Float[Array, "n *rest"]:
  """Takes the rows from their slots, in their own order."""
  flat = values.reshape(-1, *values.shape[2:])
  return flat if order is None else flat[order]
