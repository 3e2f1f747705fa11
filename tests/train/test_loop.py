# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import jax
import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.train import loop
from realm_jax.train.stop import StopRequest


def losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return {
    record["step"]: record["loss"]
    for record in map(json.loads, lines)
    if "loss" in record
  }


@pytest.mark.parametrize("stage", ["ict", "mlm"])
def test_a_run_checkpoints_logs_and_marks_its_end(tmp_path, make_run, stage):
  assert loop.train(make_run(stage), str(tmp_path))
  assert checkpoints.steps(tmp_path) == [0, 2, 4]
  assert sorted(losses(tmp_path)) == [2, 4]
  assert (tmp_path / checkpoints.TRAINING_DONE).read_text() == "4\n"


def test_a_stopped_run_goes_on_to_the_same_parameters(
  tmp_path, make_run, monkeypatch
):
  run = make_run("mlm")
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert loop.train(run, str(whole))
  with monkeypatch.context() as patch:
    patch.setattr(StopRequest, "at", lambda self, step: step == 3)
    assert not loop.train(run, str(parts))
  assert checkpoints.newest_step(parts) == 3
  assert not (parts / checkpoints.TRAINING_DONE).exists()
  assert loop.train(run, str(parts))
  jax.tree.map(
    np.testing.assert_array_equal,
    checkpoints.restore_params(parts, 4, "encoder"),
    checkpoints.restore_params(whole, 4, "encoder"),
  )


def test_a_finished_run_does_nothing_and_can_be_given_more_steps(
  tmp_path, make_run
):
  run = make_run("mlm")
  assert loop.train(run, str(tmp_path))
  assert loop.train(run, str(tmp_path))
  assert checkpoints.newest_step(tmp_path) == 4
  assert loop.train(dataclasses.replace(run, num_steps=6), str(tmp_path))
  assert checkpoints.newest_step(tmp_path) == 6


def test_a_run_starts_from_another_s_parameters(tmp_path, make_run):
  first, second = tmp_path / "first", tmp_path / "second"
  loop.train(make_run("mlm"), str(first))
  init = dataclasses.replace(make_run("mlm").init, encoder=f"{first}@4")
  loop.train(make_run("mlm", init=init), str(second))
  jax.tree.map(
    np.testing.assert_array_equal,
    checkpoints.restore_params(second, 0, "encoder"),
    checkpoints.restore_params(first, 4, "encoder"),
  )


def test_a_start_of_another_architecture_is_refused(tmp_path, make_run):
  loop.train(make_run("mlm"), str(tmp_path / "first"))
  run = make_run("mlm")
  wider = dataclasses.replace(run.encoder, mlp_size=64)
  init = dataclasses.replace(run.init, encoder=str(tmp_path / "first"))
  with pytest.raises(ValueError, match=r"mlp_up/bias: \(32,\) there, \(64,\)"):
    loop.train(
      make_run("mlm", encoder=wider, init=init), str(tmp_path / "second")
    )
