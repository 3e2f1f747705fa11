# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from realm_jax.config import EmbedderConfig
from realm_jax.index import publish as publishing
from realm_jax.index import store
from realm_jax.index.manifest import MANIFEST, Manifest
from tests.index.conftest import DIM, draft, publish


def _first_shard(workdir, version):
  directory = store.index_folder(workdir) / version
  return Manifest.read(directory).shards[0]


def test_a_version_opens_as_it_was_written(tmp_path, run, corpus):
  version = publish(tmp_path, 20, corpus, shard_passages=7)

  opened = store.open_version(tmp_path, version, run, corpus)

  assert (opened.version, opened.step) == (version, 20)
  assert len(opened.manifest.shards) == -(-len(corpus) // 7)
  embs = np.random.default_rng(20).normal(size=(len(corpus), DIM))
  np.testing.assert_array_equal(np.asarray(opened.embeddings), np.float32(embs))
  scale = opened.retriever_params["shared"]["head"]["scale"]
  np.testing.assert_array_equal(scale, np.full(DIM, 20, np.float32))
  best = opened.index.search(np.float32(embs[:3]), 1)
  np.testing.assert_array_equal(best.scores.shape, (3, 1))


def test_versions_are_listed_by_step_and_by_corpus(
  tmp_path, corpus, other_corpus
):
  assert store.list_versions(tmp_path) == []
  first = publish(tmp_path, 9, corpus)
  second = publish(tmp_path, 100, corpus)
  other = publish(tmp_path, 20, other_corpus)
  assert store.list_versions(tmp_path) == [first, other, second]
  assert store.list_versions(tmp_path, corpus) == [first, second]
  assert [store.step_of(name) for name in (first, second)] == [9, 100]


def test_a_draft_is_not_there_for_readers(tmp_path, run, corpus):
  directory, _ = draft(tmp_path, 20, corpus)
  assert store.list_versions(tmp_path) == []
  with pytest.raises(FileNotFoundError, match="not a published"):
    store.open_version(tmp_path, directory.name, run, corpus)


def test_another_corpus_is_refused_with_both_fingerprints(
  tmp_path, run, corpus, other_corpus
):
  version = publish(tmp_path, 20, other_corpus)
  both = f"{other_corpus.fingerprint}.*{corpus.fingerprint}"
  with pytest.raises(ValueError, match=both):
    store.open_version(tmp_path, version, run, corpus)


@pytest.mark.parametrize(
  ("field", "foreign"),
  [("tokenizer_fingerprint", "feed"), ("num_passages", 7), ("dim", 99)],
)
def test_what_does_not_fit_the_run_is_refused_with_both_values(
  tmp_path, run, corpus, field, foreign
):
  directory, manifest = draft(tmp_path, 20, corpus)
  own = getattr(manifest, field)
  manifest = dataclasses.replace(manifest, **{field: foreign})
  publishing.publish(directory, manifest)
  with pytest.raises(ValueError, match=f"{field} is {foreign!r}.*{own!r}"):
    store.open_version(tmp_path, manifest.version, run, corpus)


def test_another_width_of_the_run_is_refused(tmp_path, run, corpus):
  version = publish(tmp_path, 20, corpus)
  wider = dataclasses.replace(
    run, embedder=EmbedderConfig(bert=run.embedder.bert, dim=DIM * 2)
  )
  with pytest.raises(ValueError, match=f"dim is {DIM}.*{2 * DIM} in this run"):
    store.open_version(tmp_path, version, wider, corpus)


def _embedding_file(tmp_path, version):
  return tmp_path / "index" / version / _first_shard(tmp_path, version)


def test_a_truncated_shard_is_found_on_opening(tmp_path, run, corpus):
  version = publish(tmp_path, 20, corpus)
  path = _embedding_file(tmp_path, version)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=f"{path} is damaged"):
    store.open_version(tmp_path, version, run, corpus)


def test_a_flipped_byte_is_found_on_opening_or_by_request(
  tmp_path, run, corpus, monkeypatch
):
  version = publish(tmp_path, 20, corpus)
  store.verify_checksums(tmp_path, version)
  path = _embedding_file(tmp_path, version)
  damaged = bytearray(path.read_bytes())
  damaged[-1] ^= 1
  path.write_bytes(damaged)
  with pytest.raises(ValueError, match=f"{path} is damaged"):
    store.open_version(tmp_path, version, run, corpus)
  # A large version opens on its sizes alone.
  monkeypatch.setattr(store, "CHECKSUM_BYTES", 10)
  store.open_version(tmp_path, version, run, corpus)
  with pytest.raises(ValueError, match=f"{path} is damaged"):
    store.verify_checksums(tmp_path, version)


def test_embeddings_of_another_shape_than_promised_are_refused(
  tmp_path, corpus
):
  directory, manifest = draft(tmp_path, 20, corpus)
  manifest = dataclasses.replace(manifest, num_passages=5)
  with pytest.raises(ValueError, match=r"\(5, 8\)"):
    store.open_files(directory, manifest, corpus)


@pytest.mark.parametrize("name", ["20", "00000020", "x-0123abcd", MANIFEST])
def test_strange_names_are_no_versions(tmp_path, name):
  (tmp_path / "index" / name).mkdir(parents=True)
  (tmp_path / "index" / name / MANIFEST).touch()
  assert store.list_versions(tmp_path) == []
  with pytest.raises(ValueError, match="no index version"):
    store.step_of(name)
