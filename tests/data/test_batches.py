# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/batches.py."""

import grain
import numpy as np
import pytest

from realm_jax.data import batches


def _dataset(count=22):
  def example(index, rng):
    return {"index": np.int32(index), "draw": rng.integers(1 << 30)}

  return grain.MapDataset.range(count).seed(5).shuffle().random_map(example)


def _drawn(iterator, count):
  return [next(iterator) for _ in range(count)]


def _column(drawn, name="index"):
  return np.stack([batch[name] for batch in drawn])


def test_processes_share_the_global_batch_in_order():
  whole = _drawn(batches.make_batches(_dataset(), 4), 5)
  shares = [
    _drawn(batches.make_batches(_dataset(), 4, process, 2), 5)
    for process in range(2)
  ]
  joined = np.concatenate([_column(share) for share in shares], axis=1)
  np.testing.assert_array_equal(joined, _column(whole))


def test_an_epoch_sees_each_example_once_and_drops_the_rest():
  drawn = list(batches.make_batches(_dataset(), 4))
  assert len(drawn) == 5
  assert len(set(_column(drawn).reshape(-1).tolist())) == 20


def test_a_restored_iterator_draws_what_was_to_come():
  dataset = _dataset().repeat()
  iterator = batches.make_batches(dataset, 4)
  _drawn(iterator, 7)
  state = iterator.get_state()
  expected = _drawn(iterator, 9)
  resumed = batches.make_batches(dataset, 4)
  resumed.set_state(state)
  found = _drawn(resumed, 9)
  for name in ("index", "draw"):
    np.testing.assert_array_equal(_column(found, name), _column(expected, name))


@pytest.mark.parametrize("counts", [(1, 2, 4), (4, 1, 8), (2, 8, 2, 1)])
def test_a_stream_goes_on_over_any_number_of_processes(counts):
  dataset = _dataset().repeat()  # 22 examples: an epoch ends within a batch.
  state = None
  found = []
  for count in counts:
    shares = []
    states = []
    for process in range(count):
      iterator = batches.make_batches(dataset, 8, process, count)
      if state:
        iterator.set_state(state)
      shares.append(_column(_drawn(iterator, 5)))
      states.append(iterator.get_state())
    state = states[0]
    assert states == [state] * count  # Any may save it for all.
    found.append(np.concatenate(shares, axis=1))
  whole = _drawn(batches.make_batches(dataset, 8), 5 * len(counts))
  np.testing.assert_array_equal(np.concatenate(found), _column(whole))


def test_epochs_differ_in_order():
  drawn = _column(_drawn(batches.make_batches(_dataset(20).repeat(), 4), 10))
  first, second = drawn[:5].reshape(-1), drawn[5:].reshape(-1)
  assert set(first.tolist()) == set(second.tolist())
  assert not np.array_equal(first, second)


def test_a_batch_may_be_one_example():
  drawn = _drawn(batches.make_batches(_dataset(20).repeat(), 1), 40)
  in_fours = _drawn(batches.make_batches(_dataset(20).repeat(), 4), 10)
  np.testing.assert_array_equal(
    _column(drawn).reshape(-1), _column(in_fours).reshape(-1)
  )


def test_sizes_that_cannot_be_are_refused():
  with pytest.raises(ValueError, match=r"batch_size \(5\) .* 2 processes"):
    batches.make_batches(_dataset(), 5, 0, 2)
  with pytest.raises(ValueError, match=r"batch_size \(32\) exceeds the 22"):
    batches.make_batches(_dataset(), 32)


def test_query_lengths_are_those_of_the_first_examples():
  masks = [np.arange(6) < i % 6 for i in range(9)]
  dataset = grain.MapDataset.source(masks).map(lambda m: {"query": {"mask": m}})
  found = batches.sample_lengths(dataset, "query", 7)
  assert found.tolist() == [0, 1, 2, 3, 4, 5, 0]
  assert len(batches.sample_lengths(dataset, "query", 70)) == 9
