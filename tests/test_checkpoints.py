# SPDX-License-Identifier: Apache-2.0
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realm_jax import checkpoints
from realm_jax.checkpoints import CheckpointWriter, RunPosition
from realm_jax.train.step import init_state


def some_state(width=4):
  params = {
    "retriever": {"shared": {"kernel": jnp.arange(3.0 * width).reshape(3, -1)}},
    "encoder": {"bias": jnp.ones(2)},
  }
  return init_state(params, optax.adam(1e-3))


def abstract(state):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state,
  )


POSITION = RunPosition(
  data_state={"next_index": 5}, index_versions=((0, "a"), (3, "b"))
)


def test_state_and_position_come_back_as_they_were(tmp_path):
  state = some_state()
  with CheckpointWriter(tmp_path, keep=2) as writer:
    assert writer.restore_newest(abstract(state)) is None
    writer.save(5, state, POSITION)
    writer.wait()
    restored, position = writer.restore_newest(abstract(state))
  assert position == POSITION
  jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_workdir_may_be_a_relative_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with CheckpointWriter("run", keep=1) as writer:
    writer.save(1, some_state(), POSITION)
  assert checkpoints.steps(tmp_path / "run") == [1]
  assert "shared" in checkpoints.restore_params("run", 1, "retriever")
  assert checkpoints.metadata("run", 1)["data_state"] == POSITION.data_state


def test_another_job_reads_steps_one_subtree_and_the_position(tmp_path):
  assert checkpoints.steps(tmp_path) == []
  with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
    checkpoints.newest_step(tmp_path)
  with CheckpointWriter(tmp_path, keep=2) as writer:
    for step in (1, 2, 3):
      writer.save(step, some_state(), POSITION)
  assert checkpoints.steps(tmp_path) == [2, 3]
  assert checkpoints.newest_step(tmp_path) == 3
  tree = checkpoints.restore_params(tmp_path, 3, "retriever")
  assert isinstance(tree["shared"]["kernel"], np.ndarray)
  np.testing.assert_array_equal(
    tree["shared"]["kernel"], np.arange(12.0).reshape(3, 4)
  )
  run = checkpoints.metadata(tmp_path, 3)
  assert run["index_versions"] == [[0, "a"], [3, "b"]]


def test_a_missing_step_or_subtree_is_named_with_what_there_is(tmp_path):
  with CheckpointWriter(tmp_path, keep=2) as writer:
    writer.save(1, some_state(), POSITION)
  with pytest.raises(FileNotFoundError, match=r"Steps there are: \[1\]"):
    checkpoints.restore_params(tmp_path, 7, "retriever")
  with pytest.raises(ValueError, match=r"'reader', only \['encoder'"):
    checkpoints.restore_params(tmp_path, 1, "reader")


def test_another_architecture_is_refused_naming_the_array(tmp_path):
  with CheckpointWriter(tmp_path, keep=2) as writer:
    writer.save(1, some_state(), POSITION)
    writer.wait()
    wider = abstract(some_state(width=5))
    with pytest.raises(ValueError, match=r"kernel: \(3, 4\) there, \(3, 5\)"):
      writer.restore_newest(wider)


def test_a_store_that_cannot_hold_checkpoints_is_refused():
  with pytest.raises(ValueError, match=r"s3://bucket/run.*only gs://"):
    checkpoints.steps("s3://bucket/run")


def test_a_step_says_when_it_was_committed(tmp_path):
  before = time.time()
  with CheckpointWriter(tmp_path, keep=1) as writer:
    state = {"params": {"retriever": {"scale": np.ones(2)}}}
    writer.save(5, state, RunPosition(data_state={}))
  assert before < checkpoints.committed_at(tmp_path, 5) < time.time()


def test_what_a_save_left_that_was_killed_is_removed(tmp_path):
  folder = checkpoints.folder(tmp_path)
  (folder / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  with CheckpointWriter(tmp_path, keep=2) as writer:
    writer.save(6, some_state(), POSITION)
    writer.wait()
    assert [path.name for path in folder.iterdir()] == ["6"]
