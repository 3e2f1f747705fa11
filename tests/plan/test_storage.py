# SPDX-License-Identifier: Apache-2.0
"""Sizes on hosts and on disk, against real files."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import checkpoints, sharding
from realm_jax.checkpoints import CheckpointWriter, RunPosition
from realm_jax.config import MeshConfig, RetrievalConfig
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.scann_backend import build_scann
from realm_jax.plan import estimate, storage
from realm_jax.train.program import Program


def bytes_in(folder):
  files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
  return sum(path.stat().st_size for path in files)


def test_a_checkpoint_is_as_large_as_a_saved_one(reading_run, tmp_path):
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  state = Program(reading_run, mesh).abstract_state
  rng = np.random.default_rng(0)
  # Numbers as a trained run has them: Orbax compresses zeros to nothing.
  state = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), state
  )
  with CheckpointWriter(tmp_path, keep=1) as writer:
    writer.save(1, state, RunPosition(data_state={}, index_versions=()))
  expected = estimate.state_bytes(
    reading_run, estimate.abstract_params(reading_run)
  )
  saved = bytes_in(checkpoints.folder(tmp_path))
  assert saved == pytest.approx(expected, rel=0.1)


def test_frozen_parameters_have_no_moments_in_a_checkpoint(make_run):
  run = make_run("openqa")
  params = estimate.abstract_params(run)
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(tree))
    for name, tree in {
      **params["retriever"],
      "reader": params["reader"],
    }.items()
  }
  assert estimate.state_bytes(run, params) == 4 * (
    3 * sizes["query"] + sizes["document"] + 3 * sizes["reader"]
  )


def test_a_searcher_is_as_large_as_a_built_one(make_run, tmp_path):
  run = make_run("realm")
  run = dataclasses.replace(
    run,
    embedder=dataclasses.replace(run.embedder, dim=64),
    retrieval=RetrievalConfig(backend="scann"),
  )
  vectors = np.random.default_rng(0).normal(size=(20_000, 64))
  index = build_scann(Embeddings([vectors.astype(np.float32)]))
  index.save(tmp_path / "scann")
  expected = storage.searcher_bytes(run, len(vectors))
  assert bytes_in(tmp_path / "scann") == pytest.approx(expected, rel=0.3)


def test_a_corpus_is_measured_or_taken_to_be_full(make_run, tiny_corpus):
  run = make_run("realm")
  own = storage.corpus_size(run, 0)
  assert own.known
  assert own.passages == len(tiny_corpus)
  assert tiny_corpus.lengths.mean() < own.tokens <= run.lengths.passage
  # The tokenizer and what is rounded up outweigh forty passages.
  assert own.disk < bytes_in(tiny_corpus.directory)
  assert storage.corpus_size(run, 10**6).mapped == pytest.approx(
    own.mapped / own.passages * 10**6
  )
  data = dataclasses.replace(run.data, corpus="nowhere")
  made_up = storage.corpus_size(dataclasses.replace(run, data=data), 0)
  assert not made_up.known
  assert made_up.passages == storage.WIKIPEDIA_PASSAGES
  assert made_up.tokens == run.lengths.passage


def test_a_host_and_a_device_hold_two_versions(make_run):
  run = make_run("realm")
  corpus = storage.corpus_size(run, 10**6)
  vectors = 10**6 * run.embedder.dim * 4
  assert storage.host_memory(run, corpus).vectors == 2 * vectors
  on_devices = dataclasses.replace(
    run, retrieval=RetrievalConfig(backend="device", device_dtype="bfloat16")
  )
  assert storage.device_index_bytes(on_devices, 10**6, 4) == vectors / 4
  assert storage.device_index_bytes(run, 10**6, 4) == 0
