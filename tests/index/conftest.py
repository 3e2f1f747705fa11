# SPDX-License-Identifier: Apache-2.0
"""A small corpus, a config to go with it, and versions made without a model."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import checkpoints, config, files, sharding
from realm_jax.checksums import describe_file
from realm_jax.config import (
  BertConfig,
  DataConfig,
  EmbedderConfig,
  LengthConfig,
  RefreshConfig,
  RetrievalConfig,
  RunConfig,
)
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.corpus_edits import apply_edits, read_edits
from realm_jax.data.records import Document
from realm_jax.data.tokenize import load_tokenizer, train_tokenizer
from realm_jax.index import drafts, store
from realm_jax.index import publish as publishing
from realm_jax.index.corpora import Move
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import Manifest
from realm_jax.models.embedder import Embedder

NUM_PASSAGES = 60
DIM = 8
_WORDS = [
  "river",
  "mountain",
  "city",
  "lake",
  "king",
  "queen",
  "bridge",
  "castle",
]


def documents(seed):
  rng = np.random.default_rng(seed)
  for number in range(NUM_PASSAGES):
    words = rng.choice(_WORDS, size=rng.integers(2, 20))
    yield Document(
      title=f"{_WORDS[number % 8]} {number}",
      text=" ".join(words) + f" {number}.",
      uid=f"passage/{number}",
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Holds `tokenizer`, and the corpora `corpus` and `other_corpus`."""
  directory = tmp_path_factory.mktemp("data")
  texts = [f"{d.title} {d.text}" for d in documents(0)]
  tokenizer = train_tokenizer(texts, 120, directory / "tokenizer")
  for seed, name in enumerate(("corpus", "other_corpus")):
    build_corpus(documents(seed), tokenizer, directory / name, max_pieces=32)
  return directory


@pytest.fixture(scope="session")
def corpus(data_dir):
  return PassageCorpus.open(data_dir / "corpus")


@pytest.fixture(scope="session")
def other_corpus(data_dir):
  return PassageCorpus.open(data_dir / "other_corpus")


@pytest.fixture(scope="session")
def edited_corpus(data_dir, corpus):
  """`corpus` without passage 0, with passage 3 replaced and one more."""
  edits = [
    {"uid": "passage/0", "remove": True},
    {"uid": "passage/3", "title": "lake 3", "text": "queen of the bridge 3."},
    {"uid": "passage/new", "title": "castle", "text": "king of the river."},
  ]
  path = data_dir / "edits.jsonl"
  path.write_text("".join(json.dumps(edit) + "\n" for edit in edits))
  return apply_edits(corpus, read_edits(corpus, path), data_dir / "edited")


@pytest.fixture(scope="session")
def tokenizer(data_dir):
  return load_tokenizer(data_dir / "tokenizer")


@pytest.fixture
def run(data_dir, tokenizer):
  """A run whose embedder is tiny, refreshed every 10 steps."""
  bert = BertConfig(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    mlp_size=32,
    max_positions=64,
  )
  return RunConfig(
    data=DataConfig(
      tokenizer=str(data_dir / "tokenizer"), corpus=str(data_dir / "corpus")
    ),
    lengths=LengthConfig(query=16, passage=32, joint=48),
    embedder=EmbedderConfig(bert=bert, dim=DIM),
    encoder=bert,
    retrieval=RetrievalConfig(backend="exact"),
    refresh=RefreshConfig(
      policy="async", every_steps=10, lag_steps=5, wait_seconds=20.0
    ),
  )


@pytest.fixture
def one_device(monkeypatch):
  """Builders see one; test_embed has several, which would cost time here."""
  mesh = sharding.make_mesh(config.MeshConfig(), jax.devices()[:1])
  monkeypatch.setattr(sharding, "local_mesh", lambda: mesh)


@pytest.fixture
def lockstep(run):
  return dataclasses.replace(
    run, refresh=dataclasses.replace(run.refresh, policy="lockstep")
  )


@pytest.fixture
def workdir(tmp_path, run):
  """A run's directory, with its config."""
  return claim(tmp_path / "workdir", run)


def claim(directory, run):
  """Makes a run's directory; returns it."""
  directory.mkdir()
  # A builder may be waiting for it: at once, as the trainer does.
  files.write_whole(directory / "config.json", config.dumps(run))
  return directory


def retriever_params(run, seed):
  """Returns parameters of one shared tower, another for each seed."""
  rng = np.random.default_rng(seed)
  return {
    "shared": jax.tree.map(
      lambda leaf: leaf + rng.normal(scale=0.1, size=leaf.shape).astype("f4"),
      _initial(run.embedder),
    )
  }


@functools.cache
def _initial(embedder):
  rows = {
    "ids": jnp.zeros((1, 8), jnp.int32),
    "segments": jnp.zeros((1, 8), jnp.int32),
    "mask": jnp.ones((1, 8), bool),
  }
  init = jax.jit(Embedder(embedder).init, static_argnames="deterministic")
  params = init(jax.random.key(0), **rows, deterministic=True)["params"]
  return jax.tree.map(np.asarray, params)


def save_checkpoints(workdir, run, steps, *, index_versions=(), keep=100):
  """Writes checkpoints whose parameters depend on the step."""
  with checkpoints.CheckpointWriter(workdir, keep) as writer:
    for step in steps:
      state = {"params": {"retriever": retriever_params(run, seed=step)}}
      writer.save(
        step,
        state,
        checkpoints.RunPosition(data_state={}, index_versions=index_versions),
      )
      writer.wait()


def draft(workdir, step, corpus, shard_passages=2**17):
  """Writes a version of random vectors; returns its directory and manifest."""
  embs = np.random.default_rng(step).normal(size=(len(corpus), DIM))
  embs = embs.astype(np.float32)
  version = store.version_name(step, corpus.fingerprint)
  params = {"shared": {"head": {"scale": np.full(DIM, step, np.float32)}}}
  plan = drafts.DraftPlan(
    step=step,
    checkpoint_unix_secs=0.0,
    embedder_hash=f"{step:064d}",
    num_passages=len(embs),
    shard_passages=shard_passages,
  )
  directory = store.index_folder(workdir) / version
  made = drafts.begin(directory, plan, params, Leases(), LeaseObserver())
  for shard in range(plan.num_shards):
    made.add(shard, embs[plan.rows(shard)])
  shards = made.shards()
  return directory, Manifest(
    version=version,
    step=step,
    checkpoint_unix_secs=0.0,
    corpus_fingerprint=corpus.fingerprint,
    tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    embedder_hash=plan.embedder_hash,
    num_passages=len(corpus),
    dim=DIM,
    backend="exact",
    scann={},
    searcher="",
    shards=tuple(shard.path for shard in shards),
    files=(
      *shards,
      describe_file(directory, directory / drafts.PARAMS_FILE),
    ),
    libraries={},
    checks={"recall_at_10": 1.0},
  )


def publish(workdir, step, corpus, **plan):
  """Publishes a version of random vectors; returns its name."""
  directory, manifest = draft(workdir, step, corpus, **plan)
  publishing.publish(directory, manifest)
  return manifest.version


def to(corpus, from_step, number=1):
  """Returns a move to a corpus."""
  return Move(
    number=number,
    from_step=from_step,
    directory=str(corpus.directory),
    fingerprint=corpus.fingerprint,
  )
