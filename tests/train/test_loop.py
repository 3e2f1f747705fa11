# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import logging
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from realm_jax import checkpoints, config
from realm_jax.config import DprConfig, RefreshConfig
from realm_jax.index import store
from realm_jax.index.builder import build_index
from realm_jax.index.manifest import Manifest
from realm_jax.train import loop
from realm_jax.train.progress import Progress


def losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return {
    record["step"]: record["loss"]
    for record in map(json.loads, lines)
    if "loss" in record
  }


@pytest.mark.parametrize("stage", ["ict", "dpr", "mlm"])
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
    patch.setattr(Progress, "advance", stop_at(3))
    assert not loop.train(run, str(parts))
  assert checkpoints.newest_step(parts) == 3
  assert sorted(losses(parts)) == [2, 3]
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


@pytest.fixture
def beside(tmp_path):
  """(run, watch, ..) -> starts a builder on a thread, as of checkpoint 0."""
  threads = []

  def build(watch, workdir):
    while not checkpoints.steps(workdir):
      time.sleep(0.01)
    build_index(workdir, watch=watch, poll_seconds=0.05)

  def start(run, watch, workdir=tmp_path):
    workdir.mkdir(exist_ok=True)
    (workdir / "config.json").write_text(config.dumps(run))
    args = (watch, workdir)
    threads.append(threading.Thread(target=build, args=args, daemon=True))
    threads[-1].start()

  yield start
  for thread in threads:
    thread.join(timeout=600)


def records(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_without_a_builder_training_goes_on_and_warns(
  tmp_path, make_run, beside, caplog
):
  refresh = RefreshConfig(every_steps=1, lag_steps=1, min_recall_at_10=0.0)
  run = make_run("realm", num_steps=8, log_every_steps=1, refresh=refresh)
  beside(run, watch=False)  # It ends with the index of checkpoint 0.
  with caplog.at_level(logging.WARNING, logger="realm_jax"):
    assert loop.train(run, str(tmp_path))

  told = [r.message for r in caplog.records if "Is the builder" in r.message]
  assert [message.split(":")[0] for message in told] == ["step 4", "step 7"]
  assert "the index is of step 0, 4 steps and" in told[0]
  logged = [line for line in records(tmp_path) if "loss" in line]
  assert [line["index/staleness_steps"] for line in logged] == list(range(8))
  for line in logged:
    assert 0 < line["retrieval/null_mass"] < 1
    assert line["retrieval/entropy"] > 0
    assert 0 <= line["retrieval/own_words"] <= 1
    assert line["index/staleness_seconds"] > 0


@pytest.mark.parametrize("stage", ["realm", "openqa"])
def test_at_the_smallest_limit_of_staleness_a_run_waits_and_ends(
  tmp_path, make_run, beside, stage
):
  run = make_run(stage, num_steps=10, log_every_steps=1)
  run = dataclasses.replace(
    run,
    retrieval=dataclasses.replace(run.retrieval, lookahead=1),
    refresh=RefreshConfig(
      every_steps=2,
      max_staleness_steps=2,
      wait_seconds=500.0,
      min_recall_at_10=0.0,
    ),
  )
  beside(run, watch=True)
  assert loop.train(run, str(tmp_path))

  lines = records(tmp_path)
  logged = [line for line in lines if "loss" in line]
  assert max(line["index/staleness_steps"] for line in logged) <= 2
  waits = [line["index/staleness_wait_seconds"] for line in logged]
  assert sum(waits) > 0
  swaps = [line for line in lines if line.get("swap/first_step")]
  assert len(swaps) >= 3
  for swap in swaps:
    assert 0 < swap["swap/overlap_at_k"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpr", "openqa"])
def test_with_refreshed_passages_a_stopped_run_goes_on_to_the_same_parameters(
  tmp_path, make_run, beside, monkeypatch, stage
):
  run = make_run(
    stage,
    num_steps=6,
    log_every_steps=1,
    dpr=DprConfig(negatives=1, search=10),
    refresh=RefreshConfig(
      policy="lockstep",
      every_steps=2,
      lag_steps=1,
      wait_seconds=500.0,
      keep_versions=9,
      min_recall_at_10=0.0,
    ),
  )
  openqa = dataclasses.replace(run.openqa, train_documents=True, read_gold=True)
  run = dataclasses.replace(run, openqa=openqa)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  beside(run, True, whole)
  beside(run, True, parts)
  assert loop.train(run, str(whole))
  with monkeypatch.context() as patch:
    patch.setattr(Progress, "advance", stop_at(4))
    assert not loop.train(run, str(parts))
  assert checkpoints.newest_step(parts) == 4
  assert loop.train(run, str(parts))

  for name in ("retriever", "reader")[: 1 + (stage == "openqa")]:
    jax.tree.map(
      np.testing.assert_array_equal,
      checkpoints.restore_params(parts, 6, name),
      checkpoints.restore_params(whole, 6, name),
    )
  swaps = [r for r in records(whole) if "swap/first_step" in r]
  assert [r["swap/first_step"] for r in swaps] == [0, 3, 5]
  # Each index is of other passage vectors than the one before.
  manifests = [
    Manifest.read(store.index_folder(whole) / name)
    for name in store.list_versions(whole)
  ]
  assert len({m.embedder_hash for m in manifests}) == len(manifests) >= 3


def stop_at(last):
  """Returns a Progress.advance that asks the run to stop after a step."""
  advance = Progress.advance

  def advance_and_stop(bar, step):
    advance(bar, step)
    if step == last:
      signal.raise_signal(signal.SIGTERM)

  return advance_and_stop


@pytest.mark.parametrize(("indexed", "reached"), [(False, 0), (True, 3)])
def test_a_run_that_waits_for_an_index_stops_when_asked(
  tmp_path, make_run, beside, indexed, reached
):
  refresh = RefreshConfig(
    policy="lockstep",
    every_steps=2,
    lag_steps=1,
    wait_seconds=500.0,
    min_recall_at_10=0.0,
  )
  run = make_run("realm", log_every_steps=1, refresh=refresh)
  if indexed:
    beside(run, watch=False)  # It ends with the index of checkpoint 0.

  ended = threading.Event()

  def stop():
    metrics = tmp_path / "metrics.jsonl"
    while not metrics.exists() or (reached and reached not in losses(tmp_path)):
      if ended.wait(0.05):
        return
    os.kill(os.getpid(), signal.SIGTERM)

  stopper = threading.Thread(target=stop)
  stopper.start()
  try:
    assert not loop.train(run, str(tmp_path))
  finally:
    ended.set()
    stopper.join()
  assert checkpoints.newest_step(tmp_path) == reached
  versions = checkpoints.metadata(tmp_path, reached)["index_versions"]
  assert {step for step, _ in versions} <= {0, 3}
