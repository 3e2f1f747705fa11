# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.eval.batching import fixed_batches


@pytest.mark.parametrize("num_items", [0, 1, 4, 9])
def test_batches_have_one_size_and_hold_each_item_once(num_items):
  batches = list(fixed_batches(range(num_items), 4))
  assert all(len(batch) == 4 for batch, _ in batches)
  kept = [item for batch, count in batches for item in batch[:count]]
  assert kept == list(range(num_items))
