# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.config import RefreshConfig
from realm_jax.index.policy import OverdueAlarm, next_step

_REFRESH = {
  policy: RefreshConfig(policy=policy, every_steps=10, lag_steps=5)
  for policy in ("async", "lockstep", "never")
}
_LISTED = {
  policy: RefreshConfig(policy=policy, steps=(10, 40), lag_steps=5)
  for policy in ("async", "lockstep")
}


@pytest.mark.parametrize(
  ("policy", "steps", "handled", "expected"),
  [
    ("async", [], [], None),
    ("async", [0, 10, 13], [], 13),
    ("async", [0, 10, 13], [13], None),
    ("async", [0, 10], [13], None),  # Never back to an older one.
    ("lockstep", [0, 10, 20], [], 0),
    ("lockstep", [0, 10, 20], [0], 10),
    ("lockstep", [10, 13, 20], [0, 10], 20),
    ("lockstep", [10, 13], [0, 10], None),
    ("never", [0, 10], [], 0),
    ("never", [0, 10, 20], [0], None),
  ],
)
def test_each_policy_has_its_next_checkpoint(policy, steps, handled, expected):
  assert next_step(steps, handled, _REFRESH[policy], done=False) == expected


@pytest.mark.parametrize("policy", ["async", "lockstep", "never"])
def test_the_last_checkpoint_of_a_finished_run_is_always_indexed(policy):
  steps, handled = [10, 13], [0, 10]
  assert next_step(steps, handled, _REFRESH[policy], done=True) == 13
  assert next_step(steps, [*handled, 13], _REFRESH[policy], done=True) is None


def test_lockstep_cannot_go_on_without_a_deleted_checkpoint():
  with pytest.raises(FileNotFoundError, match=r"10 is gone.*keep_checkpoints"):
    next_step([13, 20], [0], _REFRESH["lockstep"], done=False)


@pytest.mark.parametrize(
  ("policy", "steps", "handled", "expected"),
  [
    ("async", [0], [], 0),
    ("async", [0, 10, 13], [0], 10),
    ("async", [0, 10, 13, 40, 44], [0], 40),
    ("async", [13, 20], [0], 13),  # 10 was deleted.
    ("async", [10, 13, 20], [0, 13], None),  # 13 stood for it.
    ("async", [40, 50], [40], None),
    ("lockstep", [0, 10, 20, 40], [0], 10),
    ("lockstep", [10, 20, 40], [0, 10], 40),
    ("lockstep", [10, 20], [0, 10], None),
    ("lockstep", [40, 50], [0, 10, 40], None),  # No other will follow.
  ],
)
def test_where_steps_are_listed_those_are_indexed(
  policy, steps, handled, expected
):
  assert next_step(steps, handled, _LISTED[policy], done=False) == expected


@pytest.mark.parametrize("policy", ["async", "lockstep"])
def test_after_the_listed_steps_comes_the_run_s_last_one(policy):
  steps, handled = [40, 50, 57], [0, 10, 40]
  assert next_step(steps, handled, _LISTED[policy], done=True) == 57


def _rings(alarm, index_step, num_steps):
  steps = range(index_step, num_steps)
  return [step for step in steps if alarm.rings(step, index_step)]


def test_an_overdue_refresh_is_told_at_three_intervals_and_each_doubling():
  alarm = OverdueAlarm(_REFRESH["async"])
  assert _rings(alarm, 0, 130) == [31, 61, 121]
  assert _rings(alarm, 20, 60) == [51]  # A new index begins anew.


def test_an_alarm_that_starts_late_rings_once_and_then_at_a_doubling():
  alarm = OverdueAlarm(_REFRESH["async"])
  assert [s for s in range(100, 300) if alarm.rings(s, 0)] == [100, 121, 241]


def test_a_listed_refresh_is_overdue_by_the_gap_before_it():
  alarm = OverdueAlarm(_LISTED["async"])
  assert _rings(alarm, 0, 50) == [31]
  assert _rings(alarm, 10, 110) == [101]
  assert _rings(alarm, 40, 999) == []  # None is to follow.


def test_a_frozen_index_is_never_overdue():
  assert _rings(OverdueAlarm(_REFRESH["never"]), 0, 999) == []
