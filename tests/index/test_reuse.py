# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shutil

import jax
import numpy as np
import pytest

from realm_jax import checkpoints, sharding
from realm_jax.config import InitConfig, MeshConfig
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.index import store
from realm_jax.index.builder import build_index
from realm_jax.index.corpora import Corpora
from realm_jax.index.embed import CorpusEmbedder
from realm_jax.index.move import use_corpus
from tests.index.conftest import claim, retriever_params, save_checkpoints


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  monkeypatch.setattr(sharding, "local_mesh", lambda: mesh)


@pytest.fixture
def embedded(monkeypatch):
  """How many passages each call embedded, the check's own 32 left out."""
  counts = []
  embed = CorpusEmbedder.embed

  def counting(self, retriever, ids=None, progress=None):
    if progress is not None:
      counts.append(len(ids))
    return embed(self, retriever, ids, progress)

  monkeypatch.setattr(CorpusEmbedder, "embed", counting)
  return counts


@pytest.fixture
def separate(tmp_path, run):
  """A run with a tower for each side."""
  embedder = dataclasses.replace(run.embedder, shared=False)
  run = dataclasses.replace(run, embedder=embedder)
  return claim(tmp_path / "separate", run), run


def save(workdir, run, step, query, document):
  """Writes a checkpoint with the towers of two seeds."""
  params = {
    "query": retriever_params(run, query)["shared"],
    "document": retriever_params(run, document)["shared"],
  }
  with checkpoints.CheckpointWriter(workdir, 100) as writer:
    state = {"params": {"retriever": params}}
    writer.save(step, state, checkpoints.RunPosition(data_state={}))


def vectors(workdir, run, corpus, version):
  return np.asarray(
    store.open_version(workdir, version, run, corpus).embeddings
  )


def test_a_frozen_document_tower_embeds_nothing_again(
  separate, corpus, embedded
):
  workdir, run = separate
  save(workdir, run, 1, query=1, document=1)
  (first,) = build_index(workdir)
  save(workdir, run, 2, query=2, document=1)
  (second,) = build_index(workdir)

  assert embedded == [len(corpus)]
  np.testing.assert_array_equal(
    vectors(workdir, run, corpus, first), vectors(workdir, run, corpus, second)
  )
  # The query tower is the new one.
  params = [
    store.open_version(workdir, name, run, corpus).retriever_params["query"]
    for name in (first, second)
  ]
  scales = [p["head"]["norm"]["scale"] for p in params]
  assert (scales[0] != scales[1]).any()


def test_another_document_tower_embeds_all(separate, corpus, embedded):
  workdir, run = separate
  save(workdir, run, 1, query=1, document=1)
  build_index(workdir)
  save(workdir, run, 2, query=1, document=2)
  build_index(workdir)

  assert embedded == [len(corpus)] * 2


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_begins_with_the_vectors_of_the_run_that_it_starts_from(
  separate, corpus, tmp_path, embedded, gone
):
  workdir, run = separate
  save(workdir, run, 9, query=1, document=1)
  (first,) = build_index(workdir)
  init = InitConfig(retriever=str(workdir))
  next_dir = claim(tmp_path / "next", dataclasses.replace(run, init=init))
  save(next_dir, run, 0, query=1, document=1)
  if gone:
    shutil.rmtree(workdir)
  (second,) = build_index(next_dir)

  assert embedded == [len(corpus)] * (1 + gone)
  if not gone:
    np.testing.assert_array_equal(
      vectors(workdir, run, corpus, first),
      vectors(next_dir, run, corpus, second),
    )


def test_a_changed_corpus_embeds_what_changed(
  separate, corpus, tokenizer, tmp_path, embedded
):
  workdir, run = separate
  documents = [
    Document(uid=p.uid, title=p.title, text=p.text)
    for p in corpus.passages(range(len(corpus)))
  ]
  edited = [
    Document(uid="new", title="First", text=documents[3].text),
    *documents[:5],
    *documents[6:],
  ]
  changed = build_corpus(edited, tokenizer, tmp_path / "changed", 32)
  save(workdir, run, 1, query=1, document=1)
  build_index(workdir)

  (version,) = build_index(workdir, corpus=str(changed.directory))

  assert embedded == [len(corpus), 1]
  whole = CorpusEmbedder(run, changed, tokenizer, sharding.local_mesh()).embed(
    {"document": retriever_params(run, 1)["shared"]}
  )
  np.testing.assert_allclose(
    vectors(workdir, run, changed, version), whole, rtol=1e-4, atol=1e-5
  )


def test_of_versions_over_several_corpora_the_one_that_knows_most_is_taken(
  separate, corpus, tokenizer, tmp_path, embedded
):
  workdir, run = separate
  first = corpus.passages([0])[0]
  document = Document(uid=first.uid, title=first.title, text=first.text)
  others = [
    build_corpus([*added, document], tokenizer, tmp_path / name, 32)
    for name, added in (
      ("shared", [Document(uid="new", title="New", text="None has this.")]),
      ("few", []),
    )
  ]
  save(workdir, run, 1, query=1, document=1)
  for other in (corpus, *others):
    build_index(workdir, corpus=str(other.directory))
  assert embedded == [len(corpus), 1]

  init = InitConfig(retriever=str(workdir))
  next_dir = claim(tmp_path / "next", dataclasses.replace(run, init=init))
  save(next_dir, run, 0, query=1, document=1)
  build_index(next_dir)
  assert embedded == [len(corpus), 1]


def test_a_move_embeds_what_changed_though_the_checkpoint_is_gone(
  workdir, run, corpus, edited_corpus, embedded
):
  save_checkpoints(workdir, run, [0, 10])
  build_index(workdir)
  use_corpus(workdir, edited_corpus.directory)
  shutil.rmtree(workdir / "checkpoints" / "10")
  (workdir / checkpoints.TRAINING_DONE).touch()

  (new,) = build_index(workdir, watch=True)

  assert embedded == [len(corpus), 2]
  assert new == store.version_name(10, edited_corpus.fingerprint)
  assert store.list_versions(workdir) == [new]  # Nobody needs the old one.
  opened = store.open_version(workdir, new, run, edited_corpus)
  whole = CorpusEmbedder(
    run,
    edited_corpus,
    load_tokenizer(run.data.tokenizer),
    sharding.local_mesh(),
  ).embed(opened.retriever_params)
  np.testing.assert_allclose(
    np.asarray(opened.embeddings), whole, rtol=1e-4, atol=1e-5
  )
  assert build_index(workdir, watch=True) == []


def test_later_checkpoints_are_indexed_over_the_next_corpus(
  workdir, run, corpus, edited_corpus
):
  save_checkpoints(workdir, run, [0, 10, 20])
  use_corpus(workdir, edited_corpus.directory, from_step=15)
  (workdir / "checkpoints" / "20").rename(workdir / "20")
  first = build_index(workdir)
  (workdir / "20").rename(workdir / "checkpoints" / "20")
  corpora = Corpora(corpus, workdir)
  assert [*first, *build_index(workdir)] == [
    corpora.version_name(10),
    corpora.version_name(20),
  ]
  assert corpora.of_version(corpora.version_name(20)) is not corpus
