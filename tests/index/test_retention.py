# SPDX-License-Identifier: Apache-2.0
import gc
import time

from realm_jax.index import lease, retention, store
from realm_jax.index.corpora import Corpora, write_move
from realm_jax.index.lease import LeaseObserver, Leases
from tests.index.conftest import draft, publish, to


def test_pruning_keeps_the_newest_and_the_needed(
  tmp_path, corpus, other_corpus
):
  names = [publish(tmp_path, step, corpus) for step in (0, 10, 20, 30)]
  other = publish(tmp_path, 5, other_corpus)
  doomed = retention.prune(
    tmp_path,
    Corpora(corpus),
    keep=2,
    needed=[names[0]],
    observer=LeaseObserver(),
  )
  assert doomed == [names[1]]
  assert store.list_versions(tmp_path) == [names[0], other, *names[2:]]


def test_a_former_corpus_goes_when_the_next_has_an_index(
  tmp_path, corpus, edited_corpus
):
  corpora = Corpora(corpus, tmp_path)
  old = [publish(tmp_path, step, corpus) for step in (0, 10, 20)]
  write_move(tmp_path, to(edited_corpus, from_step=20))
  begun = store.version_name(30, corpus.fingerprint)
  draft(tmp_path, 30, corpus)

  def prune(needed=()):
    return retention.prune(tmp_path, corpora, 2, needed, LeaseObserver())

  # Until then it serves; but what is begun over it will never serve.
  assert prune() == [begun]
  new = publish(tmp_path, 20, edited_corpus)
  assert prune(needed=[old[2]]) == [old[0]]
  assert prune() == [old[2]]
  assert store.list_versions(tmp_path) == [old[1], new]


def test_drafts_that_were_overtaken_are_cleared_away(
  tmp_path, corpus, other_corpus
):
  for step, of in ((10, corpus), (30, corpus), (10, other_corpus)):
    draft(tmp_path, step, of)
  publish(tmp_path, 20, corpus)
  doomed = retention.prune(
    tmp_path, Corpora(corpus), keep=2, needed=[], observer=LeaseObserver()
  )
  assert doomed == [store.version_name(10, corpus.fingerprint)]
  assert len(list((tmp_path / "index").iterdir())) == 3


def test_what_a_reader_has_open_stays_until_it_lets_go(tmp_path, run, corpus):
  version = publish(tmp_path, 0, corpus)
  opened = store.open_version(tmp_path, version, run, corpus)
  again = store.open_version(tmp_path, version, run, corpus)
  newer = [publish(tmp_path, step, corpus) for step in (10, 20)]

  def prune():
    return retention.prune(tmp_path, Corpora(corpus), 2, [], LeaseObserver())

  assert prune() == []
  del opened
  gc.collect()
  assert prune() == []
  del again
  gc.collect()
  # A finaliser only asks for the lease to be dropped.
  deadline = time.monotonic() + 60
  while store.readers_folder(tmp_path, version).exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert prune() == [version]
  assert store.list_versions(tmp_path) == newer
  assert list((tmp_path / "index" / "readers").iterdir()) == []


def test_a_dead_readers_lease_expires(tmp_path, corpus, monkeypatch):
  version = publish(tmp_path, 0, corpus)
  for step in (10, 20):
    publish(tmp_path, step, corpus)
  folder = store.readers_folder(tmp_path, version)
  folder.mkdir(parents=True)
  (folder / "far.json").write_text('{"host": "another", "pid": 1}')
  observer = LeaseObserver(expiry_seconds=30.0)
  assert retention.prune(tmp_path, Corpora(corpus), 2, [], observer) == []
  now = time.monotonic()
  monkeypatch.setattr(lease.time, "monotonic", lambda: now + 31)
  assert retention.prune(tmp_path, Corpora(corpus), 2, [], observer) == [
    version
  ]
  assert not folder.exists()


def test_a_draft_that_a_living_builder_makes_stays(tmp_path, corpus):
  directory, _ = draft(tmp_path, 10, corpus)
  publish(tmp_path, 20, corpus)
  with Leases() as other:
    other.take(directory / "leases" / "00000")
    assert (
      retention.prune(tmp_path, Corpora(corpus), 2, [], LeaseObserver()) == []
    )
  doomed = retention.prune(tmp_path, Corpora(corpus), 2, [], LeaseObserver())
  assert doomed == [directory.name]
