# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.config import RefreshConfig
from realm_jax.index.policy import next_step

_REFRESH = {
  policy: RefreshConfig(policy=policy, every_steps=10, lag_steps=5)
  for policy in ("async", "lockstep", "never")
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
