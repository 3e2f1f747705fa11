# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import numpy as np
import pytest

from realm_jax import forward, sharding
from realm_jax.config import MeshConfig
from realm_jax.data import collate
from realm_jax.data.tokenize import train_tokenizer
from realm_jax.index.embed import CorpusEmbedder, static_lengths
from realm_jax.models.embedder import Embedder
from tests.index.conftest import DIM, retriever_params


def _params(run, seed=0):
  return retriever_params(run, seed)["shared"]


def _embedder(run, corpus, tokenizer, num_devices=1):
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:num_devices])
  return CorpusEmbedder(run, corpus, tokenizer, mesh)


@pytest.fixture
def few_tokens(monkeypatch):
  # Several batches, of several lengths, the last one padded.
  monkeypatch.setattr(forward, "_TOKENS_PER_CPU", 160)


def test_every_row_is_its_own_passage_however_it_is_padded(
  run, corpus, tokenizer, few_tokens
):
  params = _params(run)
  ids = np.arange(len(corpus))
  rows = collate.passage_rows(corpus, tokenizer, ids, run.lengths.passage)
  expected = jax.jit(
    lambda rows: Embedder(run.embedder).apply(
      {"params": params}, **rows, deterministic=True
    )
  )(rows)
  found = _embedder(run, corpus, tokenizer).embed({"shared": params})
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert found.shape == (len(corpus), DIM) and found.dtype == np.float32


def test_devices_do_not_change_the_vectors(run, corpus, tokenizer, few_tokens):
  params = {"shared": _params(run)}
  one, eight = (
    _embedder(run, corpus, tokenizer, devices).embed(params)
    for devices in (1, 8)
  )
  np.testing.assert_allclose(one, eight, atol=1e-5)


def test_chosen_passages_come_in_the_order_asked(
  run, corpus, tokenizer, few_tokens
):
  embedder = _embedder(run, corpus, tokenizer)
  params = {"shared": _params(run)}
  ids = np.array([41, 3, 3, 17])
  np.testing.assert_allclose(
    embedder.embed(params, ids), embedder.embed(params)[ids], atol=1e-5
  )


def test_passages_go_through_the_document_tower(run, corpus, tokenizer):
  embedder = _embedder(run, corpus, tokenizer)
  query, document = _params(run, 1), _params(run, 2)
  separate = embedder.embed({"query": query, "document": document})
  np.testing.assert_array_equal(separate, embedder.embed({"shared": document}))


def test_a_second_version_compiles_nothing(run, corpus, tokenizer, few_tokens):
  embedder = _embedder(run, corpus, tokenizer)
  embedder.embed({"shared": _params(run, 1)})
  compiled = embedder._embed_rows._cache_size()
  assert compiled <= 4
  embedder.embed({"shared": _params(run, 2)})
  embedder.embed({"shared": _params(run, 2)}, np.array([5]))
  assert embedder._embed_rows._cache_size() == compiled


def test_progress_counts_every_passage_once(run, corpus, tokenizer, few_tokens):
  done = []
  _embedder(run, corpus, tokenizer).embed(
    {"shared": _params(run)}, progress=done.append
  )
  assert len(done) > 3 and sum(done) == len(corpus)


def test_longer_passages_than_the_limit_are_cut(run, corpus, tokenizer):
  lengths = dataclasses.replace(run.lengths, passage=12)
  run = dataclasses.replace(run, lengths=lengths)
  found = _embedder(run, corpus, tokenizer).embed({"shared": _params(run)})
  assert np.isfinite(found).all()


def test_another_tokenizer_than_the_corpus_is_refused(run, corpus, tmp_path):
  other = train_tokenizer(["quite another text"], 60, tmp_path / "tokenizer")
  with pytest.raises(ValueError, match=corpus.tokenizer_fingerprint[:12]):
    _embedder(run, corpus, other)


def test_static_lengths_are_few_and_fit_every_row():
  num_tokens = np.array([5, 9, 9, 20, 21, 30])
  np.testing.assert_array_equal(static_lengths(num_tokens, 3, 32), [16, 24, 32])
  np.testing.assert_array_equal(static_lengths(num_tokens, 3, 30), [16, 24, 30])
  np.testing.assert_array_equal(static_lengths(num_tokens[:1], 4, 30), [8])
