# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from realm_jax.index import lease, listing, store
from realm_jax.index import publish as publishing
from realm_jax.index.manifest import Manifest
from tests.index.conftest import claim, draft, publish, save_checkpoints


@pytest.fixture
def published(workdir, run, corpus, monkeypatch):
  """Four versions, of which a checkpoint needs the first."""
  monkeypatch.setenv("COLUMNS", "200")
  names = [publish(workdir, step, corpus) for step in (0, 10, 20, 30)]
  save_checkpoints(workdir, run, [5], index_versions=[(0, names[0])])
  return names


def test_the_list_has_versions_users_drafts_and_refusals(
  workdir, run, corpus, published, capsys
):
  opened = store.open_version(workdir, published[1], run, corpus)
  made, _ = draft(workdir, 40, corpus)
  refused, _ = draft(workdir, 50, corpus)
  publishing.refuse(refused, "recall is too low", {})

  listing.list_index(workdir)

  lines = capsys.readouterr().out.splitlines()
  of = {name: next(x for x in lines if name in x) for name in published}
  assert "checkpoints" in of[published[0]]
  assert "1 reader" in of[opened.version]
  assert f"{len(corpus):,}" in of[published[2]]
  assert "reader" not in of[published[3]]
  assert f"{made.name} is being made" in lines
  assert f"{refused.name} refused: recall is too low" in lines


def test_damage_is_told_of_every_version(workdir, published, capsys):
  listing.verify_index(workdir)
  assert "4 versions are as they were published" in capsys.readouterr().out
  for name in published[:2]:
    directory = store.index_folder(workdir) / name
    path = directory / Manifest.read(directory).shards[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
  with pytest.raises(ValueError, match=f"(?s){published[0]}.*{published[1]}"):
    listing.verify_index(workdir)


def test_nothing_to_verify_is_an_error(workdir):
  with pytest.raises(FileNotFoundError, match="no published version"):
    listing.verify_index(workdir)


def test_pruning_keeps_what_is_needed_and_the_newest(
  tmp_path, run, corpus, monkeypatch
):
  refresh = dataclasses.replace(run.refresh, keep_versions=2)
  workdir = claim(tmp_path / "w", dataclasses.replace(run, refresh=refresh))
  names = [publish(workdir, step, corpus) for step in (0, 10, 20, 30)]
  save_checkpoints(workdir, run, [5], index_versions=[(0, names[0])])

  assert listing.prune_index(workdir) == [names[1]]


def test_pruning_watches_readers_first(
  workdir, run, corpus, published, monkeypatch
):
  naps = []
  monkeypatch.setattr(listing.time, "sleep", naps.append)
  opened = store.open_version(workdir, published[0], run, corpus)
  listing.prune_index(workdir)
  assert naps == [lease.EXPIRY_SECONDS]
  assert opened.version in store.list_versions(workdir)
