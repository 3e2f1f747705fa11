# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/ladder.py."""

import itertools

import numpy as np
import pytest

from realm_jax.data import ladder


def _simulated(rng, batches=100, rows=64):
  # As lengths of Wikipedia passages are: skewed, cut at the limit.
  lengths = rng.gamma(4.0, 40.0, size=(batches, rows)).astype(np.int64) + 3
  return np.minimum(lengths, 288)


def _token_rows(lengths):
  def make(members, length):
    assert lengths[members].max() <= length
    column = np.arange(length)
    mask = column < lengths[members][:, None]
    ids = np.where(mask, members[:, None], -1).astype(np.int32)
    return {"ids": ids, "segments": np.zeros_like(ids), "mask": mask}

  return make


@pytest.mark.parametrize("multiple", [1, 8])
def test_unsorting_restores_every_row(multiple):
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng), 288, groups=4, multiple=multiple)
  for lengths in _simulated(rng, batches=20):
    rung = plan.first_fit(lengths)
    rows = plan.pack(lengths, rung, _token_rows(lengths))
    firsts = np.concatenate([group["ids"][:, 0] for group in rows["groups"]])
    np.testing.assert_array_equal(firsts[rows["order"]], np.arange(64))
    used = np.concatenate([g["mask"].sum(axis=1) for g in rows["groups"]])
    np.testing.assert_array_equal(used[rows["order"]], lengths)


def test_shapes_are_those_announced_and_divide():
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng), 288, groups=4, multiple=8)
  assert sum(plan.sizes) == 64 and len(plan.sizes) <= 4
  assert all(size % 8 == 0 for size in plan.sizes)
  announced = {
    tuple(zip(plan.sizes, lengths, strict=True)) for lengths in plan.rungs
  }
  for lengths in _simulated(rng, batches=20):
    rows = plan.pack(lengths, plan.first_fit(lengths), _token_rows(lengths))
    assert tuple(g["ids"].shape for g in rows["groups"]) in announced


def test_rungs_ascend_and_the_last_fits_everything():
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng), 288, groups=4, multiple=1)
  for low, high in itertools.pairwise(plan.rungs):
    assert np.all(np.array(low) <= np.array(high))
  longest = np.full(64, 288)
  assert plan.first_fit(longest) == len(plan.rungs) - 1
  with pytest.raises(ValueError, match=r"289 tokens exceeds .* 288"):
    plan.first_fit(longest + 1)


def test_padding_stays_far_below_that_of_one_rectangle():
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng), 288, groups=4, multiple=8)
  batches = _simulated(rng, batches=200)
  costs = [
    np.dot(plan.sizes, plan.rungs[plan.first_fit(lengths)])
    for lengths in batches
  ]
  # Real tokens are 0.55 of the rectangle; 1 is no saving at all.
  assert np.mean(costs) / (64 * 288) < 0.75


def test_most_batches_take_the_first_two_rungs():
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng), 288, groups=4, multiple=8)
  rungs = [plan.first_fit(lengths) for lengths in _simulated(rng, batches=200)]
  assert np.mean(np.array(rungs) <= 1) > 0.8


def test_the_cheapest_cuts_are_found():
  """Against every way of cutting 12 rows into 3."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    usual = np.sort(rng.integers(1, 100, size=12))
    plan = ladder.plan(usual[None, :], 100, groups=3, multiple=2)
    ends = [
      (2 * i, 2 * j, 12) for i, j in itertools.combinations(range(1, 6), 2)
    ]
    costs = [
      sum(
        (end - start) * usual[end - 1]
        for start, end in itertools.pairwise((0, *cut))
      )
      for cut in ends
    ]
    found = np.dot(plan.sizes, ladder.group_lengths(usual, plan.sizes))
    assert found == min(costs)


def test_few_rows_make_few_groups():
  plan = ladder.plan(np.full((3, 8), 20), 288, groups=4, multiple=8)
  assert plan.sizes == (8,)


def test_rows_of_several_processes_are_found_in_the_whole():
  rng = np.random.default_rng(0)
  plan = ladder.plan(_simulated(rng, rows=16), 288, groups=3, multiple=2)
  shares = _simulated(rng, batches=2, rows=16)
  packed = [
    plan.pack(lengths, 3, _token_rows(lengths), process, 2)
    for process, lengths in enumerate(shares)
  ]
  # A global array has one process' rows after the other's, group by group.
  whole = np.concatenate(
    [
      rows["groups"][g]["mask"].sum(axis=1)
      for g in range(len(plan.sizes))
      for rows in packed
    ]
  )
  order = np.concatenate([rows["order"] for rows in packed])
  np.testing.assert_array_equal(whole[order], shares.reshape(-1))


def test_rows_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match=r"12 rows .* over 8 devices"):
    ladder.plan(np.full((1, 12), 5), 8, groups=2, multiple=8)


def test_lengths_are_rounded_up_to_full_tiles():
  assert ladder.round_up(9, 100) == 16
  assert ladder.round_up(16, 100) == 16
  assert ladder.round_up(97.5, 100) == 100
