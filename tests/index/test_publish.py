# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.index import publish as publishing
from realm_jax.index import store
from realm_jax.index.manifest import MANIFEST
from tests.index.conftest import draft, publish


def test_an_older_checkpoint_never_follows_a_newer_one(
  tmp_path, corpus, other_corpus
):
  newer = publish(tmp_path, 30, corpus)
  directory, manifest = draft(tmp_path, 20, corpus)
  with pytest.raises(ValueError, match=f"checkpoint 20 .* {newer}"):
    publishing.publish(directory, manifest)
  assert store.list_versions(tmp_path) == [newer]
  publish(tmp_path, 20, other_corpus)  # Another corpus has its own order.


def test_a_published_version_is_final(tmp_path, corpus):
  version = publish(tmp_path, 20, corpus)
  with pytest.raises(FileExistsError, match="final"):
    publishing.begin_draft(tmp_path, version)


def test_what_a_crash_left_is_cleared_before_the_next_draft(tmp_path, corpus):
  directory, _ = draft(tmp_path, 20, corpus)
  (directory / f".{MANIFEST}").write_text("half a manif")
  assert publishing.begin_draft(tmp_path, directory.name) == directory
  assert list(directory.iterdir()) == []


def test_a_refused_draft_leaves_its_reason_and_no_data(tmp_path, corpus):
  directory, _ = draft(tmp_path, 20, corpus)
  publishing.refuse(directory, "too few", {"recall_at_10": 0.5})
  assert not directory.exists()
  assert publishing.refusal(tmp_path, directory.name) == "too few"
  assert publishing.list_refused(tmp_path, corpus) == [directory.name]
  assert store.list_versions(tmp_path) == []


def test_a_later_success_clears_the_refusal(tmp_path, corpus, other_corpus):
  directory, manifest = draft(tmp_path, 20, corpus)
  publishing.refuse(directory, "too few", {})
  publish(tmp_path, 20, corpus)
  assert publishing.refusal(tmp_path, manifest.version) is None
  assert publishing.list_refused(tmp_path, corpus) == []
  assert publishing.list_refused(tmp_path, other_corpus) == []


def test_pruning_keeps_the_newest_and_the_needed(
  tmp_path, corpus, other_corpus
):
  names = [publish(tmp_path, step, corpus) for step in (0, 10, 20, 30)]
  other = publish(tmp_path, 5, other_corpus)
  doomed = publishing.prune(tmp_path, corpus, keep=2, needed=[names[0]])
  assert doomed == [names[1]]
  assert store.list_versions(tmp_path) == [names[0], other, *names[2:]]


def test_drafts_that_were_overtaken_are_cleared_away(
  tmp_path, corpus, other_corpus
):
  for step, of in ((10, corpus), (30, corpus), (10, other_corpus)):
    draft(tmp_path, step, of)
  publish(tmp_path, 20, corpus)
  doomed = publishing.prune(tmp_path, corpus, keep=2, needed=[])
  assert doomed == [store.version_name(10, corpus.fingerprint)]
  assert len(list((tmp_path / "index").iterdir())) == 3


def test_a_reader_outlives_the_pruning_of_its_version(tmp_path, run, corpus):
  version = publish(tmp_path, 0, corpus)
  opened = store.open_version(tmp_path, version, run, corpus)
  for step in (10, 20):
    publish(tmp_path, step, corpus)
  publishing.prune(tmp_path, corpus, keep=2, needed=[])
  assert store.list_versions(tmp_path)[0] != version
  embs = np.random.default_rng(0).normal(size=opened.embeddings.shape)
  np.testing.assert_array_equal(np.asarray(opened.embeddings), np.float32(embs))


def test_a_full_disk_leaves_nothing_that_is_visible(
  tmp_path, corpus, monkeypatch
):
  def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "save", full)
  with pytest.raises(OSError, match="No space left"):
    publish(tmp_path, 20, corpus)
  assert store.list_versions(tmp_path) == []
