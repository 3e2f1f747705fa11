# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.index import damage, publish, reuse, store
from realm_jax.index.builder import build_index
from realm_jax.index.corpora import Corpora
from realm_jax.index.manifest import Manifest
from realm_jax.index.swap import IndexWatcher
from tests.index.conftest import publish as publish_version
from tests.index.conftest import save_checkpoints


def flip(workdir, version, path="embeddings"):
  """Changes a byte of one of a version's files."""
  found = workdir / "index" / version / path
  file = sorted(found.iterdir())[0] if found.is_dir() else found
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)


def content(workdir, version, run, corpus):
  opened = store.open_version(workdir, version, run, corpus)
  return np.array(opened.embeddings)


@pytest.fixture
def built(workdir, run):
  save_checkpoints(workdir, run, [3, 7])
  (version,) = build_index(workdir)
  return version


@pytest.mark.parametrize(
  "path", ["embeddings", "retriever.safetensors", "MANIFEST.json"]
)
def test_a_version_that_a_reader_finds_damaged_is_made_anew(
  workdir, run, corpus, built, path
):
  vectors = content(workdir, built, run, corpus)
  flip(workdir, built, path)
  with pytest.raises(damage.VersionDamaged, match="build-index"):
    store.open_version(workdir, built, run, corpus)
  assert store.look(workdir).reported == [built]

  assert build_index(workdir) == [built]

  np.testing.assert_array_equal(content(workdir, built, run, corpus), vectors)
  assert store.look(workdir).reported == []
  # Nothing of what was damaged is left.
  assert len(list((workdir / "index" / built / "embeddings").iterdir())) == 1


def test_an_older_version_is_made_anew_beside_a_newer(
  workdir, run, corpus, built
):
  save_checkpoints(workdir, run, [9])
  (newer,) = build_index(workdir)
  flip(workdir, built)
  with pytest.raises(damage.VersionDamaged):
    store.verify_checksums(workdir, built)
  (workdir / checkpoints.TRAINING_DONE).touch()
  assert build_index(workdir, watch=True) == [built]
  store.verify_checksums(workdir, built)
  assert store.list_versions(workdir) == [built, newer]


def test_a_reader_that_was_wrong_changes_nothing(workdir, built, caplog):
  with (
    pytest.raises(damage.VersionDamaged),
    damage.reporting(workdir / "index" / built),
  ):
    raise ValueError("what this host read was not what is there")
  assert build_index(workdir) == []
  assert "is sound here" in caplog.text
  assert store.look(workdir).reported == []


def test_a_version_whose_checkpoint_is_gone_is_withdrawn(
  workdir, run, corpus, built, caplog
):
  flip(workdir, built)
  with pytest.raises(damage.VersionDamaged):
    store.open_version(workdir, built, run, corpus)
  (workdir / "checkpoints" / "7").rename(workdir / "gone")
  build_index(workdir)
  assert "its checkpoint is gone" in caplog.text
  assert built not in store.list_versions(workdir)
  assert store.look(workdir).reported == []


def test_of_two_builders_the_slower_leaves_a_version_made_anew(
  workdir, corpus, monkeypatch
):
  version = publish_version(workdir, 7, corpus)
  flip(workdir, version)
  directory = workdir / "index" / version
  real = damage.check

  def check(path):
    try:
      real(path)
    finally:  # Meanwhile the other has made it anew.
      text = (directory / "MANIFEST.json").read_text()
      (directory / "MANIFEST.json").write_text(text + "\n")

  monkeypatch.setattr(damage, "check", check)
  assert "is damaged" in damage.withdraw(directory)
  assert store.list_versions(workdir) == [version]


def test_a_watcher_waits_for_a_damaged_version_to_be_made_anew(
  workdir, run, corpus, caplog
):
  caplog.set_level(logging.WARNING)
  version = publish_version(workdir, 10, corpus)
  flip(workdir, version)
  with IndexWatcher(
    workdir, run, Corpora(corpus), poll_seconds=0.01
  ) as watcher:
    while "waits for a builder" not in caplog.text:
      assert watcher.ready() is None
    flip(workdir, version)  # Back to what it was.
    damage.clear(workdir / "index" / version)
    assert watcher.require(10).version.version == version
  assert caplog.text.count("waits for a builder") == 1


@pytest.mark.parametrize("path", ["embeddings", reuse.PASSAGES_FILE])
def test_damaged_vectors_are_not_copied_into_another_version(
  workdir, run, corpus, path
):
  save_checkpoints(workdir, run, [10])
  (version,) = build_index(workdir)
  found = workdir / "index" / version
  hash_ = Manifest.read(found).embedder_hash
  assert reuse.known_vectors([workdir], corpus, hash_) is not None
  flip(workdir, version, path)
  assert reuse.known_vectors([workdir], corpus, hash_) is None
  assert damage.is_reported(found)


def test_a_version_that_fails_its_checks_is_no_longer_reported(workdir, corpus):
  version = publish_version(workdir, 7, corpus)
  directory = workdir / "index" / version
  with pytest.raises(damage.VersionDamaged), damage.reporting(directory):
    raise ValueError
  publish.refuse(directory, "recall is too low", {})
  assert store.look(workdir).reported == []
