# SPDX-License-Identifier: Apache-2.0
from concurrent import futures
import contextlib
import dataclasses
import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from realm_jax import checkpoints, sharding
from realm_jax.config import MeshConfig, ScannConfig
from realm_jax.index import builder, drafts, store
from realm_jax.index.agenda import Agenda
from realm_jax.index.builder import build_index
from realm_jax.index.corpora import open_corpora
from realm_jax.index.device import DeviceIndex
from realm_jax.index.exact import ExactIndex
from realm_jax.index.lease import LeaseObserver
from realm_jax.index.search import Neighbors, recall_of
from realm_jax.index.verify import VersionRefused
from tests.index.conftest import claim, save_checkpoints


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  # test_embed has several; here they only cost time.
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  monkeypatch.setattr(sharding, "local_mesh", lambda: mesh)


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


def test_scann_versions_open_and_search(tmp_path, run, corpus):
  retrieval = dataclasses.replace(run.retrieval, backend="scann")
  run = dataclasses.replace(run, retrieval=retrieval)
  workdir = claim(tmp_path / "workdir", run)
  save_checkpoints(workdir, run, [0])
  (version,) = build_index(workdir)
  opened = store.open_version(workdir, version, run, corpus)
  found = opened.index.search(opened.embeddings[np.arange(3)], 5)
  assert found.ids.shape == (3, 5)
  assert (workdir / "index" / version / opened.manifest.searcher).is_dir()


def test_the_recall_that_is_published_is_of_what_the_trainer_searches(
  tmp_path, run, corpus
):
  # Untrained vectors are alike: too much so for bf16.
  recalls = {}
  for dtype in ("float32", "bfloat16"):
    changed = dataclasses.replace(
      run,
      retrieval=dataclasses.replace(
        run.retrieval, backend="device", device_dtype=dtype
      ),
      refresh=dataclasses.replace(run.refresh, min_recall_at_10=0.0),
    )
    workdir = claim(tmp_path / dtype, changed)
    save_checkpoints(workdir, changed, [0])
    (version,) = build_index(workdir)
    opened = store.open_version(workdir, version, changed, corpus)
    queries = opened.embeddings[np.arange(len(corpus))]
    found = opened.index.search(queries, 10)
    exact = ExactIndex(opened.embeddings).search(queries, 10)
    scores = np.einsum("bd,bkd->bk", queries, opened.embeddings[found.ids])
    true = Neighbors(found.ids, scores)
    tolerance = 1e-5 * float(np.abs(exact.scores).max())
    recalls[dtype] = recall_of(true, exact, tolerance)
    measured = opened.manifest.checks["recall_at_10"]
    assert measured == pytest.approx(recalls[dtype])
  assert recalls["float32"] == 1.0 > recalls["bfloat16"]


@pytest.mark.parametrize("built_for", ["scann", "device"])
def test_a_version_built_for_any_back_end_can_be_searched_on_the_devices(
  tmp_path, run, corpus, built_for
):
  retrieval = dataclasses.replace(run.retrieval, backend=built_for)
  built = dataclasses.replace(run, retrieval=retrieval)
  workdir = claim(tmp_path / "workdir", built)
  save_checkpoints(workdir, built, [0])
  (version,) = build_index(workdir)
  retrieval = dataclasses.replace(run.retrieval, backend="device")
  reader = dataclasses.replace(run, retrieval=retrieval)
  opened = store.open_version(workdir, version, reader, corpus)
  assert isinstance(opened.index, DeviceIndex)
  queries = opened.embeddings[np.arange(9)]
  exact = ExactIndex(opened.embeddings).search(queries, 5)
  np.testing.assert_allclose(
    opened.index.search(queries, 5).scores, exact.scores, rtol=1e-5
  )


def test_a_layout_that_does_not_fit_is_refused_before_work(
  tmp_path, run, corpus
):
  retrieval = dataclasses.replace(
    run.retrieval,
    backend="scann",
    scann=ScannConfig(num_leaves=len(corpus) + 1),
  )
  run = dataclasses.replace(run, retrieval=retrieval)
  workdir = claim(tmp_path / "workdir", run)
  save_checkpoints(workdir, run, [0])
  with pytest.raises(ValueError, match="num_leaves"):
    build_index(workdir)
  assert not (workdir / "index").exists()


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


@contextlib.contextmanager
def _watching(workdir):
  """A builder with --watch on a thread; leaving waits for it to end."""
  with futures.ThreadPoolExecutor(1) as pool:
    builder = pool.submit(build_index, workdir, watch=True, poll_seconds=0.02)
    try:
      yield builder
    except BaseException:
      # The test failed. The builder would wait for a run that never ends.
      workdir.mkdir(exist_ok=True)
      (workdir / checkpoints.TRAINING_DONE).touch()
      raise


def _wait_for(condition, builder):
  deadline = time.monotonic() + 600
  while not condition():
    if builder.done():
      pytest.fail(f"The builder ended: {builder.exception()!r}")
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_watching_begins_before_the_trainer_and_ends_after_it(
  tmp_path, run, corpus
):
  workdir = tmp_path / "workdir"
  with _watching(workdir) as builder:
    time.sleep(0.1)
    claim(workdir, run)
    save_checkpoints(workdir, run, [0])
    _wait_for(lambda: len(store.list_versions(workdir)) == 1, builder)
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


def test_a_full_disk_is_an_error_and_leaves_nothing(workdir, run, monkeypatch):
  def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")

  save_checkpoints(workdir, run, [7])
  monkeypatch.setattr(np, "save", full)
  with pytest.raises(OSError, match="No space left"):
    build_index(workdir)
  assert list((workdir / "index").iterdir()) == []


_MOMENTS = (
  "embedding",
  "writing a shard",
  "after a shard",
  "building the searcher",
  "before the manifest",
)


@contextlib.contextmanager
def _stalled(workdir, moment):
  """A builder's process that stands still at a moment; leaving kills it."""
  command = [
    *(sys.executable, "-m", "tests.faulty", moment),
    *("build-index", f"--workdir={workdir}", "--watch"),
  ]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout.readline() == "stopped\n"
      yield process
    finally:
      process.kill()


@pytest.fixture
def in_shards(tmp_path, run):
  """A workdir whose versions have ScaNN and shards of 20 passages."""
  run = dataclasses.replace(
    run,
    retrieval=dataclasses.replace(run.retrieval, backend="scann"),
    refresh=dataclasses.replace(run.refresh, shard_passages=20),
  )
  workdir = claim(tmp_path / "sharded", run)
  save_checkpoints(workdir, run, [7])
  return workdir


@pytest.mark.parametrize("moment", _MOMENTS)
def test_a_builder_killed_at_any_moment_is_replaced_by_the_next(
  in_shards, run, corpus, moment
):
  with _stalled(in_shards, moment):
    pass
  assert len(list((in_shards / "index").iterdir())) == 1  # What it left.
  assert store.list_versions(in_shards) == []

  (version,) = build_index(in_shards)

  opened = store.open_version(in_shards, version, run, corpus)
  store.verify_checksums(in_shards, version)
  # Nothing of the dead is left in the version.
  directory = in_shards / "index" / version
  left = {
    path.relative_to(directory).as_posix()
    for path in directory.rglob("*")
    if path.is_file()
  }
  told = {file.path for file in opened.manifest.files}
  assert left == told | {"MANIFEST.json"}


def _count_embedded(monkeypatch):
  shards = []
  add = drafts.Draft.add

  def counting(self, shard, embs):
    shards.append(shard)
    add(self, shard, embs)

  monkeypatch.setattr(drafts.Draft, "add", counting)
  return shards


def test_a_shard_that_is_done_is_not_embedded_again(
  in_shards, corpus, monkeypatch
):
  with _stalled(in_shards, "after a shard"):
    pass
  embedded = _count_embedded(monkeypatch)
  build_index(in_shards)
  assert len(embedded) == -(-len(corpus) // 20) - 1


def test_a_second_builder_works_on_while_the_first_stands_still(
  in_shards, corpus, monkeypatch
):
  embedded = _count_embedded(monkeypatch)
  # It takes every shard but the first one's, and waits for that.
  with (
    _stalled(in_shards, "embedding") as other,
    _watching(in_shards) as builder,
  ):
    (in_shards / checkpoints.TRAINING_DONE).touch()
    others = -(-len(corpus) // 20) - 1
    _wait_for(lambda: len(embedded) == others, builder)
    assert store.list_versions(in_shards) == []
    other.kill()
  assert [store.step_of(name) for name in builder.result()] == [7]
  assert sorted(embedded) == list(range(-(-len(corpus) // 20)))


def test_builders_side_by_side_publish_one_version(in_shards, run, corpus):
  (in_shards / checkpoints.TRAINING_DONE).touch()
  command = [
    sys.executable,
    "-m",
    "realm_jax.cli",
    "build-index",
    f"--workdir={in_shards}",
    "--watch",
  ]
  both = [subprocess.Popen(command) for _ in range(2)]
  assert [process.wait(300) for process in both] == [0, 0]
  (version,) = store.list_versions(in_shards)
  store.open_version(in_shards, version, run, corpus)
  store.verify_checksums(in_shards, version)


def test_a_flipped_byte_in_a_shard_is_embedded_again(
  in_shards, run, corpus, caplog
):
  with _stalled(in_shards, "building the searcher"):
    pass
  (directory,) = (in_shards / "index").iterdir()
  shard = sorted((directory / "embeddings").iterdir())[1]
  content = bytearray(shard.read_bytes())
  content[-1] ^= 1
  shard.write_bytes(content)

  (version,) = build_index(in_shards)

  assert "damaged" in caplog.text
  store.verify_checksums(in_shards, version)


def test_a_draft_outlives_its_checkpoint(in_shards, run, corpus):
  with _stalled(in_shards, "before the manifest"):
    (in_shards / "checkpoints" / "7").rename(in_shards / "gone")
    save_checkpoints(in_shards, run, [3])
    corpora = open_corpora(in_shards, run)
    agenda = Agenda(in_shards, run, corpora, LeaseObserver())
    step = agenda.next_step(done=False)
  assert step == 7


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
