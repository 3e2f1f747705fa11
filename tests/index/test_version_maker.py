# SPDX-License-Identifier: Apache-2.0
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.config import ScannConfig
from realm_jax.index import drafts, store
from realm_jax.index.agenda import Agenda
from realm_jax.index.builder import build_index
from realm_jax.index.corpora import open_corpora
from realm_jax.index.device import DeviceIndex
from realm_jax.index.exact import ExactIndex
from realm_jax.index.lease import LeaseObserver
from realm_jax.index.search import Neighbors, recall_of
from tests.index.builders import stalled, wait_for, watching
from tests.index.conftest import claim, save_checkpoints

pytestmark = pytest.mark.usefixtures("one_device")


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
  with stalled(in_shards, moment):
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
  with stalled(in_shards, "after a shard"):
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
    stalled(in_shards, "embedding") as other,
    watching(in_shards) as builder,
  ):
    (in_shards / checkpoints.TRAINING_DONE).touch()
    others = -(-len(corpus) // 20) - 1
    wait_for(lambda: len(embedded) == others, builder)
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
  with stalled(in_shards, "building the searcher"):
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
  with stalled(in_shards, "before the manifest"):
    (in_shards / "checkpoints" / "7").rename(in_shards / "gone")
    save_checkpoints(in_shards, run, [3])
    corpora = open_corpora(in_shards, run)
    agenda = Agenda(in_shards, run, corpora, LeaseObserver())
    step = agenda.next_step(done=False)
  assert step == 7
