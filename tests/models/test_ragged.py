# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.models.ragged import encode_rows


def group(rows, length):
  ids = jnp.asarray([row + [0] * (length - len(row)) for row in rows])
  return {"ids": ids, "segments": jnp.zeros_like(ids), "mask": ids > 0}


ROWS = [[5, 6, 7, 8], [3], [9, 1, 2], [4, 4]]
# The second rectangle has a row to spare.
RAGGED = {
  "groups": (
    group([ROWS[1], ROWS[3]], 2),
    group([ROWS[2], [], ROWS[0]], 4),
  ),
  "order": jnp.array([4, 0, 2, 1]),
}


def test_rows_come_back_in_their_own_order():
  sums = encode_rows(lambda rows: rows["ids"].sum(axis=1), RAGGED)

  np.testing.assert_array_equal(sums, [sum(row) for row in ROWS])


def test_other_arrays_travel_with_their_rows():
  factors = jnp.array([1, 10, 100, 1000])

  products = encode_rows(
    lambda rows, factor: rows["ids"].sum(axis=1) * factor, RAGGED, factors
  )

  np.testing.assert_array_equal(
    products, [sum(row) * int(f) for row, f in zip(ROWS, factors, strict=True)]
  )


def test_gradient_reaches_every_row_once():
  def total(scale):
    out = encode_rows(
      lambda rows, s: rows["ids"].sum(axis=1) * s, RAGGED, scale
    )
    return out.sum()

  grad = jax.grad(total)(jnp.ones(4))

  np.testing.assert_allclose(grad, [sum(row) for row in ROWS])
