# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.data.collate import query_rows
from realm_jax.data.tokenize import train_tokenizer
from realm_jax.eval.retriever import Retriever
from realm_jax.index.corpora import Corpora
from realm_jax.models.embedder import Embedder, tower


@pytest.fixture
def queries(tokenizer):
  texts = [f"the capital of {c}" for c in ("Chad", "Peru", "Japan")] * 15
  return [e.ids for e in tokenizer.encode_batch(texts)]


def _embed(run, params, rows):
  return Embedder(run.embedder).apply(
    {"params": params}, **jax.tree.map(jnp.asarray, rows), deterministic=True
  )


def test_search_equals_sorting_all_inner_products(
  workdirs, run, corpus, tokenizer, queries
):
  retriever = Retriever(workdirs["realm"], run, Corpora(corpus), tokenizer)

  found = retriever.search(queries, 6)

  rows = query_rows(queries, tokenizer, run.lengths.query)
  params = tower(retriever.version.retriever_params, "query")
  scores = (
    _embed(run, params, rows) @ np.asarray(retriever.version.embeddings).T
  )
  np.testing.assert_array_equal(found.ids, np.argsort(-scores, axis=1)[:, :6])
  np.testing.assert_allclose(
    found.scores, -np.sort(-scores, axis=1)[:, :6], rtol=1e-4, atol=1e-4
  )


def test_queries_are_embedded_with_the_parameters_that_are_given(
  workdirs, run, corpus, tokenizer, queries
):
  run = dataclasses.replace(run, stage="openqa")
  towers = checkpoints.restore_params(
    workdirs["openqa"], run.num_steps, "retriever"
  )
  swapped = {"query": towers["document"], "document": towers["query"]}
  corpora = Corpora(corpus)
  given = Retriever(workdirs["openqa"], run, corpora, tokenizer, swapped)
  own = Retriever(workdirs["openqa"], run, corpora, tokenizer)

  found = given.search(queries[:3], 4)

  rows = query_rows(queries[:3], tokenizer, run.lengths.query)
  embs = _embed(run, towers["document"], rows)
  best = np.max(embs @ np.asarray(own.version.embeddings).T, axis=1)
  np.testing.assert_allclose(found.scores[:, 0], best, rtol=1e-4)


def test_another_tokenizer_is_refused(tmp_path, workdirs, run, corpus):
  other = train_tokenizer(["other text"], 100, tmp_path)
  with pytest.raises(ValueError, match="made with the tokenizer"):
    Retriever(workdirs["realm"], run, Corpora(corpus), other)
