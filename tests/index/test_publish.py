# SPDX-License-Identifier: Apache-2.0
import gc
import time

import numpy as np
import pytest

from realm_jax.index import lease, store
from realm_jax.index import publish as publishing
from realm_jax.index.lease import LeaseObserver, Leases
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
  doomed = publishing.prune(
    tmp_path, corpus, keep=2, needed=[names[0]], observer=LeaseObserver()
  )
  assert doomed == [names[1]]
  assert store.list_versions(tmp_path) == [names[0], other, *names[2:]]


def test_drafts_that_were_overtaken_are_cleared_away(
  tmp_path, corpus, other_corpus
):
  for step, of in ((10, corpus), (30, corpus), (10, other_corpus)):
    draft(tmp_path, step, of)
  publish(tmp_path, 20, corpus)
  doomed = publishing.prune(
    tmp_path, corpus, keep=2, needed=[], observer=LeaseObserver()
  )
  assert doomed == [store.version_name(10, corpus.fingerprint)]
  assert len(list((tmp_path / "index").iterdir())) == 3


def test_what_a_reader_has_open_stays_until_it_lets_go(tmp_path, run, corpus):
  version = publish(tmp_path, 0, corpus)
  opened = store.open_version(tmp_path, version, run, corpus)
  again = store.open_version(tmp_path, version, run, corpus)
  newer = [publish(tmp_path, step, corpus) for step in (10, 20)]

  def prune():
    return publishing.prune(tmp_path, corpus, 2, [], LeaseObserver())

  assert prune() == []
  del opened
  gc.collect()
  assert prune() == []
  del again
  gc.collect()
  assert prune() == [version]
  assert store.list_versions(tmp_path) == newer
  assert list((tmp_path / "index" / "readers").iterdir()) == []


def test_a_dead_readers_lease_expires(tmp_path, corpus, monkeypatch):
  version = publish(tmp_path, 0, corpus)
  for step in (10, 20):
    publish(tmp_path, step, corpus)
  folder = store.readers_folder(tmp_path, version)
  folder.mkdir(parents=True)
  (folder / "far.json").write_text('{"machine": "another", "pid": 1}')
  observer = LeaseObserver(expiry_seconds=30.0)
  assert publishing.prune(tmp_path, corpus, 2, [], observer) == []
  now = time.monotonic()
  monkeypatch.setattr(lease.time, "monotonic", lambda: now + 31)
  assert publishing.prune(tmp_path, corpus, 2, [], observer) == [version]


def test_a_draft_that_a_living_builder_makes_stays(tmp_path, corpus):
  directory, _ = draft(tmp_path, 10, corpus)
  publish(tmp_path, 20, corpus)
  with Leases() as other:
    other.take(directory / "leases" / "00000")
    assert publishing.prune(tmp_path, corpus, 2, [], LeaseObserver()) == []
  doomed = publishing.prune(tmp_path, corpus, 2, [], LeaseObserver())
  assert doomed == [directory.name]


def test_a_full_disk_leaves_nothing_that_is_visible(
  tmp_path, corpus, monkeypatch
):
  def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "save", full)
  with pytest.raises(OSError, match="No space left"):
    publish(tmp_path, 20, corpus)
  assert store.list_versions(tmp_path) == []
