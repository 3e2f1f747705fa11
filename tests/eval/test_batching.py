# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.eval.batching import run_in_batches


@pytest.mark.parametrize("num_rows", [1, 3, 4, 9])
def test_batches_give_what_one_call_gives_and_have_one_shape(num_rows):
  rng = np.random.default_rng(0)
  first = {"a": rng.normal(size=(num_rows, 2))}
  second = rng.normal(size=(num_rows * 3, 5))  # Three rows for each row.
  shapes = set()

  def fn(tree, pairs):
    shapes.add((tree["a"].shape, pairs.shape))
    sums = pairs.reshape(-1, 3, 5).sum((1, 2))
    return {"sum": tree["a"].sum(1) + sums, "pairs": pairs * 2}

  got = run_in_batches(fn, num_rows, 4, first, second)

  wanted = first["a"].sum(1) + second.reshape(-1, 15).sum(1)
  np.testing.assert_allclose(got["sum"], wanted)
  np.testing.assert_array_equal(got["pairs"], second * 2)
  assert shapes == {((4, 2), (12, 5))}
