# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax.numpy as jnp
import optax
import pytest

from realm_jax import config, workdir
from realm_jax.checkpoints import CheckpointWriter, RunPosition
from realm_jax.config import RunConfig
from realm_jax.train.step import init_state


def started(path, run):
  workdir.claim(path, run)
  with CheckpointWriter(path, keep=1) as writer:
    state = init_state({"encoder": {"x": jnp.ones(1)}}, optax.sgd(1.0))
    writer.save(0, state, RunPosition(data_state={}))


def test_a_new_run_writes_its_config(tmp_path):
  run = RunConfig(seed=3)
  workdir.claim(tmp_path / "run", run)
  assert workdir.load(tmp_path / "run") == run


def test_a_run_that_has_not_started_may_change_its_config(tmp_path):
  workdir.claim(tmp_path, RunConfig(seed=3))
  workdir.claim(tmp_path, RunConfig(seed=4))
  assert workdir.load(tmp_path).seed == 4


def test_a_resume_with_another_config_names_the_key_and_both_values(tmp_path):
  run = RunConfig()
  started(tmp_path, run)
  other = dataclasses.replace(
    run, optimizer=config.OptimizerConfig(clip_norm=2.0)
  )
  with pytest.raises(ValueError, match=r"clip_norm: 1\.0 saved, 2\.0 asked"):
    workdir.claim(tmp_path, other)
  assert workdir.load(tmp_path) == run
  workdir.claim(tmp_path, other, may_differ=["optimizer"])
  assert workdir.load(tmp_path) == other


def test_a_run_goes_on_with_other_devices_parts_and_room(tmp_path):
  run = RunConfig()
  started(tmp_path, run)
  other = dataclasses.replace(
    run,
    mesh=config.MeshConfig(fsdp=4),
    optimizer=config.OptimizerConfig(accumulate_steps=8),
    remat="layers",
  )
  workdir.claim(tmp_path, other)
  assert workdir.load(tmp_path) == other
  warmer = config.OptimizerConfig(accumulate_steps=8, learning_rate=1.0)
  with pytest.raises(ValueError, match=r"\(optimizer\.learning_rate: [^;]*\)"):
    workdir.claim(tmp_path, dataclasses.replace(other, optimizer=warmer))


def test_a_directory_that_is_no_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="is not a run's workdir"):
    workdir.load(tmp_path)
