# SPDX-License-Identifier: Apache-2.0
"""Runs a row-wise function over `RaggedRows`: each rectangle by itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from realm_jax.shapes import RaggedRows, TokenRows


def encode_rows(
  fn: Callable[..., jax.Array], rows: RaggedRows, *per_row: jax.Array
) -> jax.Array:
  """Applies `fn` to each group and returns its rows in their own order.

  Args:
    fn: `(group, *per_row)` -> [group's rows, ...], each row by itself.
    rows: n rows in groups; groups may hold more rows, which are padding.
    per_row: arrays [n, ...] that go with the rows, in their own order.

  Returns:
    [n, ...], row i being what `fn` made of row i.
  """
  groups: tuple[TokenRows, ...] = rows["groups"]
  order = rows["order"]
  sizes = [group["ids"].shape[0] for group in groups]
  starts = [sum(sizes[:i]) for i in range(1, len(sizes))]

  def split(values: jax.Array) -> list[jax.Array]:
    placed = jnp.zeros((sum(sizes), *values.shape[1:]), values.dtype)
    return jnp.split(placed.at[order].set(values), starts)

  pieces = [split(values) for values in per_row]
  outputs = [
    fn(group, *(piece[i] for piece in pieces)) for i, group in enumerate(groups)
  ]
  return jnp.concatenate(outputs)[order]
