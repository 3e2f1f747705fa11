# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from realm_jax.data import packing


def _simulated(rng, batches=100, rows=64):
  # As lengths of Wikipedia passages are: skewed, cut at the limit.
  lengths = rng.gamma(4.0, 40.0, size=(batches, rows)).astype(np.int64) + 3
  return np.minimum(lengths, 288)


def _plan(simulated, longest=288, **options):
  options = {"multiple": 1} | options
  return packing.plan(simulated, longest, model_width=256, **options)


def _rows(lengths, first=0):
  """Row i is [1000 * i + 1, 1000 * i + 2, ...]."""
  column = np.arange(lengths.max())
  mask = column < lengths[:, None]
  names = 1000 * (first + np.arange(len(lengths)))[:, None] + column + 1
  ids = np.where(mask, names, -1).astype(np.int32)
  return {"ids": ids, "segments": ids % 2, "mask": mask}


def _slow_unpack(rows, i):
  """Row i's fields, read token by token."""
  line, slot = divmod(int(rows["order"][i]), rows["starts"].shape[1])
  place = int(rows["starts"][line, slot])
  ids, segments = [], []
  while place < rows["ids"].shape[1] and rows["mask"][line, place] == slot + 1:
    ids.append(rows["ids"][line, place])
    segments.append(rows["segments"][line, place])
    place += 1
  return ids, segments


@pytest.mark.parametrize("multiple", [1, 8])
def test_every_row_is_found_whole_and_nothing_else_is_there(multiple):
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng), multiple=multiple)
  for lengths in _simulated(rng, batches=20):
    rows = _rows(lengths)
    packed = plan.pack(rows, plan.first_fit(lengths))
    for i, length in enumerate(lengths):
      ids, segments = _slow_unpack(packed, i)
      assert ids == rows["ids"][i, :length].tolist()
      assert segments == rows["segments"][i, :length].tolist()
    assert (packed["mask"] > 0).sum() == lengths.sum()


def test_shapes_are_those_announced_and_divide():
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng), multiple=8)
  assert all(lines % 8 == 0 for lines in plan.rungs)
  assert plan.width % packing.LENGTH_STEP == 0
  for lengths in _simulated(rng, batches=20):
    rung = plan.first_fit(lengths)
    packed = plan.pack(_rows(lengths), rung)
    assert packed["ids"].shape == (plan.rungs[rung], plan.width)
    assert packed["starts"].shape == (plan.rungs[rung], packing.SLOTS)


def test_rungs_ascend_and_the_last_fits_everything():
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng))
  assert list(plan.rungs) == sorted(plan.rungs)
  longest = np.full(64, 288)
  assert plan.first_fit(longest) == len(plan.rungs) - 1
  with pytest.raises(ValueError, match=r"65 rows need 65 lines"):
    plan.first_fit(np.full(65, 288))
  with pytest.raises(ValueError, match=rf"{plan.width + 1} tokens exceeds"):
    plan.first_fit(longest * 0 + plan.width + 1)


def test_the_last_rung_holds_the_most_rows_of_the_shortest_length_too():
  plan = _plan(np.full((5, 64), 200))
  assert plan.first_fit(np.ones(64, np.int64)) == 0


def test_a_seventh_of_a_batch_is_padding_at_most():
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng))
  batches = _simulated(rng, batches=200)
  lines = [plan.rungs[plan.first_fit(lengths)] for lengths in batches]
  real = batches.sum() / (np.sum(lines) * plan.width)
  assert real > 6 / 7


def test_as_many_batches_are_found_by_chance_as_by_length():
  lengths = np.array([10, 30, 60])
  rows = packing.simulate_found(lengths, 500)
  shares = [np.bincount(half.reshape(-1)) for half in (rows[::2], rows[1::2])]
  shares = np.array(shares) / (len(rows) // 2 * 500)
  np.testing.assert_allclose(shares[0], 1 / 3, atol=0.01)
  np.testing.assert_allclose(shares[1], lengths / 100, atol=0.01)


def test_lines_are_those_of_a_slow_first_fit():
  rng = np.random.default_rng(0)
  for lengths in rng.integers(1, 40, size=(30, 25)):
    expected, room, slots = {}, [], []
    for i in sorted(range(25), key=lambda i: -lengths[i]):
      fits = [
        j
        for j in range(len(room))
        if room[j] >= lengths[i] and slots[j] < packing.SLOTS
      ]
      if not fits:
        room.append(48)
        slots.append(0)
        fits = [len(room) - 1]
      expected[i] = fits[0]
      room[fits[0]] -= lengths[i]
      slots[fits[0]] += 1
    found = packing.assign_lines(lengths[None], 48)[0]
    assert found.tolist() == [expected[i] for i in range(25)]


def test_batches_are_assigned_as_if_each_were_alone():
  rng = np.random.default_rng(0)
  lengths = _simulated(rng, batches=10)
  together = packing.assign_lines(lengths, 384)
  for alone, row in zip(lengths, together, strict=True):
    np.testing.assert_array_equal(
      packing.assign_lines(alone[None], 384)[0], row
    )


def test_wide_lines_are_taken_where_rows_fit_badly():
  """Rows of 50 in lines of 80 would waste 30."""
  assert _plan(np.full((5, 64), 50), longest=80).width > 80
  # Rows of one length, the longest, have nothing to gain.
  assert _plan(np.full((5, 64), 80), longest=80).width == 80


def test_a_place_does_not_depend_on_the_number_of_lines():
  """Dropout hashes places: devices must not change it."""
  rng = np.random.default_rng(0)
  lengths = _simulated(rng, batches=1)[0]
  few, many = _plan(lengths[None]), _plan(lengths[None], multiple=8)
  left = few.pack(_rows(lengths), few.first_fit(lengths))
  right = many.pack(_rows(lengths), len(many.rungs) - 1)
  np.testing.assert_array_equal(left["order"], right["order"])
  lines = len(left["ids"])
  np.testing.assert_array_equal(left["ids"], right["ids"][:lines])
  assert not right["mask"][lines:].any()


def test_rows_of_several_processes_are_found_in_the_whole():
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng, rows=16), multiple=2, process_count=2)
  shares = _simulated(rng, batches=2, rows=16)
  packed = [
    plan.fit(_rows(lengths, first=16 * process), process)
    for process, lengths in enumerate(shares)
  ]
  whole = {
    name: np.concatenate([rows[name] for rows in packed]) for name in packed[0]
  }
  for i, length in enumerate(itertools.chain(*shares)):
    ids, _ = _slow_unpack(whole, i)
    assert ids == list(range(1000 * i + 1, 1000 * i + 1 + length))


def test_parts_of_a_batch_lie_apart_and_each_is_found_by_its_own_order():
  rng = np.random.default_rng(0)
  plan = _plan(_simulated(rng, rows=16), multiple=2, num_parts=2)
  lengths = _simulated(rng, batches=1, rows=32)[0]
  packed = plan.fit(_rows(lengths))
  for part in range(2):
    own = {
      name: leaf.reshape(2, -1, *leaf.shape[1:])[part]
      for name, leaf in packed.items()
    }
    assert len(own["ids"]) in plan.rungs
    for i in range(16):
      row = 16 * part + i
      ids, _ = _slow_unpack(own, i)
      assert ids == list(range(1000 * row + 1, 1000 * row + 1 + lengths[row]))


def test_all_parts_have_the_lines_that_the_fullest_needs():
  plan = packing.Packing(10, (1, 4), num_parts=2)
  assert plan.first_fit(np.array([2, 3, 4, 5])) == 0
  assert plan.first_fit(np.array([2, 3, 8, 5])) == 1


def test_rows_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match=r"12 rows .* over 8 devices"):
    _plan(np.full((1, 12), 5), 8, multiple=8)


def test_lengths_are_rounded_up_to_full_tiles():
  assert packing.round_up(9) == 16
  assert packing.round_up(16) == 16
  assert packing.round_up(97.5) == 104
