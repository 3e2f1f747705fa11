# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import time

import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.index import builder, store
from realm_jax.index.builder import build_index
from realm_jax.index.verify import VersionRefused
from tests.index.builders import wait_for, watching
from tests.index.conftest import claim, save_checkpoints

pytestmark = pytest.mark.usefixtures("one_device")


def test_the_newest_checkpoint_is_indexed_once(workdir, run, corpus):
  save_checkpoints(workdir, run, [3, 7])
  published = build_index(workdir)
  assert published == [store.version_name(7, corpus.fingerprint)]
  assert store.list_versions(workdir) == published
  assert build_index(workdir) == []

  opened = store.open_version(workdir, published[0], run, corpus)
  params = checkpoints.restore_params(workdir, 7, "retriever")
  np.testing.assert_array_equal(
    opened.retriever_params["shared"]["head"]["norm"]["scale"],
    params["shared"]["head"]["norm"]["scale"],
  )
  manifest = opened.manifest
  assert manifest.checks["recall_at_10"] == 1.0
  assert set(manifest.phase_seconds) == {"restore", "embed", "index", "verify"}
  assert 0 < manifest.checkpoint_unix_secs <= manifest.published_unix_secs


def test_another_corpus_gets_a_version_beside_the_first(
  workdir, run, corpus, other_corpus
):
  save_checkpoints(workdir, run, [7])
  first = build_index(workdir)
  second = build_index(workdir, corpus=str(other_corpus.directory))
  assert store.list_versions(workdir, corpus) == first
  assert store.list_versions(workdir, other_corpus) == second
  store.open_version(workdir, second[0], run, other_corpus)


def test_an_older_checkpoint_is_not_indexed_after_a_newer(workdir, run, corpus):
  save_checkpoints(workdir, run, [20])
  build_index(workdir)
  (workdir / "checkpoints" / "20").rename(workdir / "checkpoints" / "10")
  with pytest.raises(ValueError, match="too late"):
    build_index(workdir)


def _strict(run):
  # No search can be better than exact.
  refresh = dataclasses.replace(run.refresh, min_recall_at_10=1.1)
  return dataclasses.replace(run, refresh=refresh)


def test_a_version_that_fails_its_checks_is_kept_back_with_the_evidence(
  tmp_path, run, corpus
):
  workdir = claim(tmp_path / "workdir", _strict(run))
  save_checkpoints(workdir, run, [7])
  with pytest.raises(VersionRefused, match=r"min_recall_at_10=1\.1"):
    build_index(workdir)
  assert store.list_versions(workdir) == []
  (evidence,) = (workdir / "index").iterdir()
  checks = json.loads(evidence.read_text())["checks"]
  assert checks["recall_at_10"] == 1.0


def test_a_watching_builder_goes_on_after_a_refusal_and_says_so_at_the_end(
  tmp_path, run, corpus
):
  run = dataclasses.replace(
    run, refresh=dataclasses.replace(run.refresh, policy="lockstep")
  )
  workdir = claim(tmp_path / "workdir", _strict(run))
  save_checkpoints(workdir, run, [0, 10])
  (workdir / checkpoints.TRAINING_DONE).touch()
  with pytest.raises(VersionRefused, match="00000010-"):
    build_index(workdir, watch=True)
  assert len(list((workdir / "index").glob("*.refused.json"))) == 2


def test_watching_begins_before_the_trainer_and_ends_after_it(
  tmp_path, run, corpus
):
  workdir = tmp_path / "workdir"
  with watching(workdir) as builder:
    time.sleep(0.1)
    claim(workdir, run)
    save_checkpoints(workdir, run, [0])
    wait_for(lambda: len(store.list_versions(workdir)) == 1, builder)
    save_checkpoints(workdir, run, [25])
    (workdir / checkpoints.TRAINING_DONE).touch()
  assert [store.step_of(name) for name in builder.result()] == [0, 25]


def test_under_lockstep_each_refresh_checkpoint_is_indexed_in_order(
  tmp_path, lockstep, corpus
):
  workdir = claim(tmp_path / "workdir", lockstep)
  save_checkpoints(workdir, lockstep, [0, 10, 13, 20, 24])
  (workdir / checkpoints.TRAINING_DONE).touch()
  published = build_index(workdir, watch=True)
  assert [store.step_of(name) for name in published] == [0, 10, 20, 24]


def _deleted_on_reading(monkeypatch, workdir, step):
  real = checkpoints.restore_params

  def restore(where, which, subtree):
    if which == step:
      path = workdir / "checkpoints" / str(step)
      path.rename(workdir / f"deleted_{step}")
      raise ValueError("half of a checkpoint was read")
    return real(where, which, subtree)

  monkeypatch.setattr(checkpoints, "restore_params", restore)
  monkeypatch.setattr(builder, "DELETION_SECONDS", 0.01)


def test_a_checkpoint_that_goes_while_it_is_read_is_passed_over(
  workdir, run, corpus, monkeypatch
):
  save_checkpoints(workdir, run, [10, 20])
  (workdir / checkpoints.TRAINING_DONE).touch()
  _deleted_on_reading(monkeypatch, workdir, 20)
  published = build_index(workdir, watch=True)
  assert [store.step_of(name) for name in published] == [10]


def test_under_lockstep_a_checkpoint_that_goes_is_an_error(
  tmp_path, lockstep, monkeypatch
):
  workdir = claim(tmp_path / "workdir", lockstep)
  save_checkpoints(workdir, lockstep, [0, 10])
  _deleted_on_reading(monkeypatch, workdir, 0)
  with pytest.raises(FileNotFoundError, match="deleted while it was read"):
    build_index(workdir, watch=True)
  assert store.list_versions(workdir) == []


def test_old_versions_go_unless_a_checkpoint_may_resume_with_them(
  tmp_path, run, corpus
):
  refresh = dataclasses.replace(run.refresh, policy="lockstep", keep_versions=2)
  run = dataclasses.replace(run, refresh=refresh)
  workdir = claim(tmp_path / "workdir", run)
  names = [store.version_name(s, corpus.fingerprint) for s in (0, 10, 20, 30)]
  # Step 10 was trained with the index of step 0, and would be again.
  schedule = [(0, names[0])]
  save_checkpoints(workdir, run, [0], index_versions=schedule)
  save_checkpoints(workdir, run, [10, 20, 30], index_versions=schedule)
  (workdir / checkpoints.TRAINING_DONE).touch()
  build_index(workdir, watch=True)
  assert store.list_versions(workdir) == [names[0], *names[2:]]


def test_nothing_is_pruned_while_a_checkpoint_cannot_be_read(
  tmp_path, lockstep, monkeypatch
):
  def unreadable(workdir, step):
    raise FileNotFoundError(step)

  workdir = claim(tmp_path / "workdir", lockstep)
  save_checkpoints(workdir, lockstep, [0, 10, 20, 30])
  (workdir / checkpoints.TRAINING_DONE).touch()
  monkeypatch.setattr(checkpoints, "metadata", unreadable)
  assert len(build_index(workdir, watch=True)) == 4
  assert len(store.list_versions(workdir)) == 4


def test_a_damaged_checkpoint_is_an_error(workdir, run, monkeypatch):
  def damaged(*_args):
    raise ValueError("a file of the checkpoint is damaged")

  save_checkpoints(workdir, run, [7])
  monkeypatch.setattr(checkpoints, "restore_params", damaged)
  monkeypatch.setattr(builder, "DELETION_SECONDS", 0.01)
  with pytest.raises(ValueError, match="is damaged"):
    build_index(workdir)


def test_a_watching_builder_cannot_serve_another_corpus(workdir, other_corpus):
  with pytest.raises(ValueError, match="without --watch"):
    build_index(workdir, watch=True, corpus=str(other_corpus.directory))


def test_a_directory_that_is_no_workdir_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match="not a run's workdir"):
    build_index(tmp_path)


def test_a_run_without_a_retriever_is_refused(tmp_path, run):
  workdir = claim(tmp_path / "w", dataclasses.replace(run, stage="mlm"))
  with pytest.raises(ValueError, match="no retriever"):
    build_index(workdir)


def test_polling_costs_next_to_nothing(workdir, run, monkeypatch):
  save_checkpoints(workdir, run, [7])
  naps = []

  def sleep(seconds):
    naps.append(seconds)
    if len(naps) == 3:
      (workdir / checkpoints.TRAINING_DONE).touch()

  monkeypatch.setattr(builder.time, "sleep", sleep)
  build_index(workdir, watch=True, poll_seconds=0.5)
  assert naps == [0.5] * 3
