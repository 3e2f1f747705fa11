# SPDX-License-Identifier: Apache-2.0
import dataclasses
import types

import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.config import MeshConfig, OptimizerConfig, RunConfig


def test_the_mesh_covers_all_devices_or_says_why_not():
  assert sharding.make_mesh(MeshConfig()).shape == {"data": 8, "fsdp": 1}
  assert sharding.make_mesh(MeshConfig(fsdp=4)).shape == {"data": 2, "fsdp": 4}
  with pytest.raises(ValueError, match="does not cover 8 devices"):
    sharding.make_mesh(MeshConfig(data=3))


def test_large_leaves_are_split_over_fsdp_and_small_ones_replicated():
  mesh = sharding.make_mesh(MeshConfig(fsdp=4))
  state = {
    "large": jax.ShapeDtypeStruct((30, 1024), np.float32),
    "odd": jax.ShapeDtypeStruct((30, 1025), np.float32),
    "small": jax.ShapeDtypeStruct((8, 8), np.float32),
  }
  specs = jax.tree.map(lambda s: s.spec, sharding.state_shardings(state, mesh))
  assert specs == {"large": P(None, "fsdp"), "odd": P(), "small": P()}


def device(process, number):
  return types.SimpleNamespace(process_index=process, id=number)


def test_devices_stand_process_by_process_however_they_are_wired():
  # 2 x 2 chips a host: so a ring through the network meets them.
  ring = [device(n // 2 % 2, n) for n in (0, 1, 2, 3, 7, 6, 5, 4)]
  placed = sharding.by_process(ring)
  assert [each.id for each in placed] == [0, 1, 4, 5, 2, 3, 6, 7]


def test_processes_with_unequal_numbers_of_devices_are_refused():
  devices = [device(0, 0), device(1, 1), device(1, 2), device(2, 3)]
  with pytest.raises(ValueError, match=r"1 has 2 devices and process 2 has 1"):
    sharding.by_process(devices)


def test_a_batch_that_does_not_divide_is_refused_with_a_way_out():
  mesh = sharding.make_mesh(MeshConfig())
  run = RunConfig(batch_size=16)
  sharding.check_batch(run, mesh)
  with pytest.raises(ValueError, match=r"batch_size is 20.* 8 dev.* 5 .* 16"):
    sharding.check_batch(RunConfig(batch_size=20), mesh)
  parts = OptimizerConfig(accumulate_steps=4)
  run = dataclasses.replace(run, optimizer=parts)
  with pytest.raises(ValueError, match=r"accumulate_steps is 4, .* 4 of them"):
    sharding.check_batch(run, mesh)


def test_rows_of_a_batch_go_to_the_devices_in_order():
  mesh = sharding.make_mesh(MeshConfig())
  rows = np.arange(32).reshape(16, 2)
  placed = sharding.to_global({"rows": rows}, mesh)["rows"]
  np.testing.assert_array_equal(placed, rows)
  assert len(placed.addressable_shards) == 8
  assert placed.addressable_shards[0].data.shape == (2, 2)
