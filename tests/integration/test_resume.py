# SPDX-License-Identifier: Apache-2.0
"""Real trainers and builders as processes, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest

from realm_jax import checkpoints
from tests.integration.jobs import (
  CONFIG,
  ROOT,
  same_params,
  schedule,
  write_data,
  write_questions,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  root = tmp_path_factory.mktemp("run")
  write_data(root, tiny_tokenizer, tiny_corpus)
  write_questions(root, tiny_corpus)
  return root


def start(module, *flags, **environment):
  return subprocess.Popen(
    [sys.executable, "-m", module, *flags],
    cwd=ROOT,
    env=os.environ | environment,
    stderr=subprocess.PIPE,
    text=True,
    # A process group of its own, so that all of it can be killed.
    start_new_session=True,
  )


def launch(folder, workdir, stage="realm", **refresh):
  return start(
    "launch.local",
    f"--config={CONFIG}:{stage},{folder}",
    f"--workdir={workdir}",
    *[f"--config.refresh.{key}={value}" for key, value in refresh.items()],
  )


def index_builder(process):
  [builder] = [
    child
    for child in psutil.Process(process.pid).children()
    if "build-index" in child.cmdline()
  ]
  return builder


def finish(process, code=0):
  _, errors = process.communicate(timeout=900)
  assert process.returncode == code, errors
  return errors


def wait_for_step(process, workdir, step):
  metrics = workdir / "metrics.jsonl"
  deadline = time.monotonic() + 900
  while time.monotonic() < deadline:
    assert process.poll() is None, process.stderr.read()
    if metrics.exists() and f'{{"step": {step},' in metrics.read_text():
      return
    time.sleep(0.02)
  raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def undisturbed(folder):
  workdir = folder / "undisturbed"
  finish(launch(folder, workdir))
  return workdir


def test_a_run_publishes_swaps_and_ends(undisturbed, tiny_corpus):
  assert (undisturbed / checkpoints.TRAINING_DONE).exists()
  steps = [0, 8, 16]
  suffix = tiny_corpus.fingerprint[:8]
  assert schedule(undisturbed) == [
    [0 if s == 0 else s + 4, f"{s:08d}-{suffix}"] for s in steps
  ]
  # The builder published the last checkpoint's index before it ended.
  published = sorted(p.name for p in (undisturbed / "index").iterdir())
  assert f"{24:08d}-{suffix}" in published
  lines = [
    json.loads(line)
    for line in (undisturbed / "metrics.jsonl").read_text().splitlines()
  ]
  assert [x["step"] for x in lines if "loss" in x] == list(range(1, 25))
  assert [x["swap/first_step"] for x in lines if "swap/first_step" in x] == [
    0,
    12,
    20,
  ]


def test_a_killed_run_goes_on_to_bit_equal_parameters(folder, undisturbed):
  workdir = folder / "killed"
  process = launch(folder, workdir)
  # Past the swap of step 12, and past the last checkpoint, of step 8.
  wait_for_step(process, workdir, 14)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert checkpoints.newest_step(workdir) == 8
  assert "Goes on from step 8 of 24" in finish(launch(folder, workdir))
  assert schedule(workdir) == schedule(undisturbed)
  assert same_params(workdir, undisturbed)


def ctrl_c(process):
  """As a terminal does: to trainer, builder and launcher alike."""
  os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(
  "stop",
  [subprocess.Popen.terminate, pytest.param(ctrl_c, marks=pytest.mark.slow)],
)
def test_a_request_to_stop_saves_exits_with_75_and_the_rest_is_the_same(
  folder, undisturbed, stop
):
  workdir = folder / f"stopped_by_{stop.__name__}"
  process = launch(folder, workdir)
  wait_for_step(process, workdir, 10)
  stop(process)
  assert "The same command goes on" in finish(process, code=75)
  assert checkpoints.newest_step(workdir) >= 10
  finish(launch(folder, workdir))
  assert same_params(workdir, undisturbed)


def losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return [record["loss"] for record in records if "loss" in record]


def test_trainer_and_builder_on_eight_devices_give_the_same_losses(
  folder, undisturbed
):
  workdir = folder / "eight"
  process = start(
    "launch.local",
    f"--config={CONFIG}:realm,{folder}",
    f"--workdir={workdir}",
    JAX_NUM_CPU_DEVICES="8",
  )
  finish(process)
  assert schedule(workdir) == schedule(undisturbed)
  np.testing.assert_allclose(losses(workdir), losses(undisturbed), rtol=2e-3)


def test_a_resume_with_another_config_is_refused(folder, undisturbed):
  process = start(
    "realm_jax.cli",
    "train",
    f"--config={CONFIG}:realm,{folder}",
    f"--workdir={undisturbed}",
    "--config.batch_size=16",
  )
  assert "batch_size: 8 saved, 16 asked" in finish(process, code=1)


def test_fine_tuning_starts_from_a_pre_trained_run(folder, undisturbed):
  workdir = folder / "qa"
  process = start(
    "launch.local",
    f"--config={CONFIG}:openqa,{folder}",
    f"--workdir={workdir}",
    f"--config.init.retriever={undisturbed}",
    f"--config.init.encoder={undisturbed}@24",
  )
  finish(process)
  trained = checkpoints.restore_params(undisturbed, 24, "retriever")["shared"]
  frozen = checkpoints.restore_params(workdir, 24, "retriever")["document"]
  jax.tree.map(np.testing.assert_array_equal, frozen, trained)


def test_a_request_to_stop_does_not_wait_for_the_last_index(folder):
  workdir = folder / "stopped_at_the_end"
  process = launch(folder, workdir)
  wait_for_step(process, workdir, 21)  # The last swap was before step 20.
  index_builder(process).suspend()
  wait_for_step(process, workdir, 24)
  while not (workdir / checkpoints.TRAINING_DONE).exists():
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)
  process.terminate()
  finish(process, code=75)
  assert not list((workdir / "index").glob(f"{24:08d}-*"))
  finish(launch(folder, workdir))
  assert list((workdir / "index").glob(f"{24:08d}-*"))


def test_an_index_that_fails_its_checks_ends_the_run_with_the_reason(folder):
  process = launch(folder, folder / "refused", "realm", min_recall_at_10=1.1)
  errors = finish(process, code=1)
  assert "below refresh.min_recall_at_10=1.1" in errors


def test_a_killed_builder_stops_the_trainer_which_saves(folder):
  workdir = folder / "alone"
  process = launch(folder, workdir, "realm")
  wait_for_step(process, workdir, 2)
  index_builder(process).kill()
  errors = finish(process, code=1)
  assert "index builder ended with exit code -9" in errors
  assert checkpoints.newest_step(workdir) >= 2
