# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from realm_jax import config

REFRESHES = [
  {"every_steps": 1},
  {"every_steps": 7},
  {"every_steps": 90},
  {"steps": (3,)},
  {"steps": (4, 5, 17, 30, 31)},
  {"policy": "never"},
]


@pytest.mark.parametrize("fields", REFRESHES)
def test_refresh_steps_agree_with_a_slow_enumeration(fields):
  refresh = config.RefreshConfig(lag_steps=1, **fields)
  listed = fields.get("steps", range(0, 200, fields.get("every_steps", 200)))
  wanted = sorted({0, *listed})
  for step in range(60):
    assert refresh.is_refresh(step) == (step in wanted)
    assert refresh.last_refresh(step) == max(s for s in wanted if s <= step)
    later = [s for s in wanted if s > step]
    assert refresh.next_refresh(step) == (later[0] if later else None)
  assert refresh.next_refresh(-1) == 0
  assert refresh.last_refresh(-3) == 0
  bounds = [*(s for s in wanted if s < 60), 60]
  assert refresh.largest_gap(60) == max(
    b - a for a, b in itertools.pairwise(bounds)
  )
