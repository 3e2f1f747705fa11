# SPDX-License-Identifier: Apache-2.0
"""The protocol in an object store, as in a directory."""

import dataclasses
import gc
import time

from etils import epath
import numpy as np
import pytest

from realm_jax import config, files
from realm_jax.index import drafts, retention, reuse, store
from realm_jax.index import publish as publishing
from realm_jax.index.builder import build_index
from realm_jax.index.corpora import Corpora, open_corpora
from realm_jax.index.exact import ExactIndex
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.index.move import use_corpus
from realm_jax.index.verify import VersionRefused
from realm_jax.mirror import VERSIONS, HostCopy
from tests.index.conftest import DIM, draft, publish, save_checkpoints


@pytest.fixture
def workdir(url, run):
  (epath.Path(url) / "config.json").write_text(config.dumps(run))
  return url


def directory_of(url, version):
  return store.index_folder(url) / version


def copied(directory):
  return HostCopy(VERSIONS, directory).folder


def test_a_version_opens_as_it_was_written(url, run, corpus):
  version = publish(url, 20, corpus, shard_passages=7)
  assert store.list_versions(url, corpus) == [version]
  opened = store.open_version(url, version, run, corpus)
  embs = np.random.default_rng(20).normal(size=(len(corpus), DIM))
  np.testing.assert_array_equal(np.asarray(opened.embeddings), np.float32(embs))
  scale = opened.retriever_params["shared"]["head"]["scale"]
  np.testing.assert_array_equal(scale, np.full(DIM, 20, np.float32))
  store.verify_checksums(url, version)


def test_a_draft_is_not_there_for_readers(url, run, corpus):
  directory, _ = draft(url, 20, corpus)
  assert store.list_versions(url) == []
  assert store.look(url).drafts == [directory.name]
  with pytest.raises(FileNotFoundError, match="not a published"):
    store.open_version(url, directory.name, run, corpus)


def test_an_older_checkpoint_is_not_published_after_a_newer(url, corpus):
  publish(url, 20, corpus)
  with pytest.raises(ValueError, match="too late"):
    publish(url, 10, corpus)


def test_a_refused_version_leaves_the_reason_alone(url, corpus):
  directory, _ = draft(url, 20, corpus)
  publishing.refuse(directory, "low recall", {"recall_at_10": 0.5})
  assert store.look(url).refused == [directory.name]
  assert publishing.refusal(url, directory.name) == "low recall"
  assert list(files.sizes(store.index_folder(url))) == [
    f"{directory.name}.refused.json"
  ]


def test_what_a_reader_has_open_stays(url, run, corpus):
  old = publish(url, 0, corpus)
  opened = store.open_version(url, old, run, corpus)
  newer = [publish(url, step, corpus) for step in (10, 20)]
  assert retention.prune(url, Corpora(corpus), 2, [], LeaseObserver()) == []
  del opened
  gc.collect()
  while retention.readers(url, old, LeaseObserver()):
    time.sleep(0.01)
  assert retention.prune(url, Corpora(corpus), 2, [], LeaseObserver()) == [old]
  assert store.list_versions(url) == newer
  assert files.sizes(directory_of(url, old)) == {}


def test_a_damaged_copy_is_fetched_again(url, run, corpus):
  version = publish(url, 20, corpus)
  directory = directory_of(url, version)
  shard = copied(directory) / Manifest.read(directory).shards[0]
  store.open_version(url, version, run, corpus)
  whole = shard.read_bytes()
  for damaged in (whole[:-1], whole[:-1] + b"\0"):
    shard.write_bytes(damaged)
    opened = store.open_version(url, version, run, corpus)
    assert shard.read_bytes() == whole
    assert np.isfinite(np.asarray(opened.embeddings)).all()


def test_what_is_damaged_in_the_store_is_never_served(
  url, run, corpus, tmp_path, monkeypatch
):
  version = publish(url, 20, corpus)
  directory = directory_of(url, version)
  path = directory / Manifest.read(directory).shards[0]
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "another host"))
  with pytest.raises(ValueError, match=f"{path} is damaged"):
    store.open_version(url, version, run, corpus)
  with pytest.raises(ValueError, match=f"{path} is damaged"):
    store.verify_checksums(url, version)
  assert list(copied(directory).rglob("*.npy")) == []


def test_copies_that_nobody_uses_go_when_another_is_used(
  url, run, corpus, tmp_path, monkeypatch
):
  first, second, third = [publish(url, step, corpus) for step in (0, 10, 20)]
  cache = tmp_path / "another host"
  monkeypatch.setenv("REALM_CACHE", str(cache))
  held = store.open_version(url, first, run, corpus)
  store.open_version(url, second, run, corpus)
  gc.collect()
  store.open_version(url, third, run, corpus)
  left = sorted(cache.glob("versions/*/"))
  assert [path.name.rsplit("-", 1)[0] for path in left] == [first, third]
  assert held.embeddings.shape == (len(corpus), DIM)


def test_builders_of_two_hosts_make_one_version(url, tmp_path, monkeypatch):
  plan = drafts.DraftPlan(
    step=3,
    checkpoint_unix_secs=0.0,
    embedder_hash="ab",
    num_passages=25,
    shard_passages=10,
  )
  params = {"shared": {"scale": np.arange(4, dtype=np.float32)}}
  for host in ("one", "two"):
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / host))
    with Leases() as leases:
      begun = drafts.begin(f"{url}/v", plan, params, leases, LeaseObserver())
      while begun.missing():
        with begun.claim() as shard:
          begun.add(shard, np.full((len(plan.rows(shard)), 4), shard, "f4"))
        if host == "one":
          break
  assert begun.drop_damaged() == []
  shards = [np.load(begun.local / each.path) for each in begun.shards()]
  assert [int(shard[0, 0]) for shard in shards] == [0, 1, 2]


@pytest.fixture
def scann(run):
  return dataclasses.replace(
    run, retrieval=dataclasses.replace(run.retrieval, backend="scann")
  )


def test_the_builder_publishes_what_a_reader_on_another_host_opens(
  workdir, run, scann, corpus, tmp_path, monkeypatch
):
  (epath.Path(workdir) / "config.json").write_text(config.dumps(scann))
  save_checkpoints(workdir, run, [10])
  [version] = build_index(workdir)
  directory = directory_of(workdir, version)
  manifest = Manifest.read(directory)
  assert manifest.checkpoint_unix_secs > 1e9
  # Nothing else is left of building it.
  assert set(files.sizes(directory)) == {
    MANIFEST,
    *(file.path for file in manifest.files),
  }
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "another host"))
  opened = store.open_version(workdir, version, scann, corpus)
  queries = opened.embeddings[np.arange(5)]
  np.testing.assert_array_equal(
    opened.index.search(queries, 1).ids,
    ExactIndex(opened.embeddings).search(queries, 1).ids,
  )
  known = reuse.known_vectors([workdir], corpus, manifest.embedder_hash)
  assert known.num_known == len(corpus)


def test_the_builder_refuses_what_fails_and_builds_nothing_twice(workdir, run):
  strict = dataclasses.replace(
    run, refresh=dataclasses.replace(run.refresh, min_recall_at_10=1.1)
  )
  save_checkpoints(workdir, run, [10])
  (epath.Path(workdir) / "config.json").write_text(config.dumps(strict))
  with pytest.raises(VersionRefused):
    build_index(workdir)
  (epath.Path(workdir) / "config.json").write_text(config.dumps(run))
  assert len(build_index(workdir)) == 1
  assert build_index(workdir) == []


def test_a_run_moves_to_another_corpus(workdir, run, corpus, edited_corpus):
  save_checkpoints(workdir, run, [10])
  build_index(workdir)
  corpora = open_corpora(workdir, run)
  assert use_corpus(workdir, edited_corpus.directory).from_step == 10
  (version,) = build_index(workdir)
  assert corpora.newest_version(workdir) == version
  opened = store.open_version(
    workdir, version, run, corpora.of_version(version)
  )
  assert len(opened.embeddings) == len(edited_corpus)


@pytest.mark.parametrize(
  "place", ["nfs", pytest.param("s3_url", marks=pytest.mark.slow)]
)
def test_versions_of_other_places_are_copied_too(
  place, request, run, corpus, tmp_path, monkeypatch
):
  workdir = epath.Path(request.getfixturevalue(place)) / "run"
  version = publish(workdir, 20, corpus, shard_passages=7)
  assert store.list_versions(workdir) == [version]
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "another host"))
  opened = store.open_version(workdir, version, run, corpus)
  embs = np.random.default_rng(20).normal(size=(len(corpus), DIM))
  np.testing.assert_array_equal(np.asarray(opened.embeddings), np.float32(embs))
  assert len(list((tmp_path / "another host").rglob("*.npy"))) == 9
  drafts.discard(directory_of(workdir, version))
  assert not list((tmp_path / "another host").rglob("*.npy"))
  assert store.list_versions(workdir) == []


def test_a_builder_works_on_a_copy_of_a_network_workdir(nfs, run, corpus):
  workdir = nfs / "run"
  workdir.mkdir(parents=True)
  (workdir / "config.json").write_text(config.dumps(run))
  save_checkpoints(workdir, run, [10])
  [version] = build_index(workdir)
  manifest = Manifest.read(directory_of(workdir, version))
  assert set(files.sizes(directory_of(workdir, version))) == {
    MANIFEST,
    *(file.path for file in manifest.files),
  }
  store.verify_checksums(workdir, version)
