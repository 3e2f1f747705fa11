# SPDX-License-Identifier: Apache-2.0
"""How long a step is held up while a published version is opened."""

import dataclasses
import pathlib
import time

import jax
from jax import numpy as jnp
import numpy as np

from realm_jax.checksums import describe_file
from realm_jax.config import RefreshConfig, RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import drafts, publish, store
from realm_jax.index.corpora import Corpora
from realm_jax.index.drafts import DraftPlan
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import Manifest
from realm_jax.index.scann_backend import ScannIndex
from realm_jax.index.swap import IndexWatcher, agree

_STEPS = 50  # Before a version appears.
_SIZE = 1024  # Of a step's matrix products.


class StandInCorpus(PassageCorpus):
  """What opening a version asks of a corpus; it has no passages."""

  def __init__(self, num_passages: int) -> None:
    self._num_passages = num_passages
    self.directory = pathlib.Path()
    self.fingerprint = self.tokenizer_fingerprint = "0" * 64

  def __len__(self) -> int:
    return self._num_passages


def publish_version(
  workdir: pathlib.Path, vectors: np.ndarray, index: ScannIndex
) -> None:
  """Publishes an index as a builder does, in shards."""
  corpus = StandInCorpus(len(vectors))
  version = store.version_name(0, corpus.fingerprint)
  plan = DraftPlan(
    step=0,
    checkpoint_unix_secs=0.0,
    embedder_hash="0" * 64,
    num_passages=len(vectors),
    shard_passages=RefreshConfig().shard_passages,
  )
  draft = drafts.begin(
    store.index_folder(workdir) / version,
    plan,
    {"scale": np.ones(1, np.float32)},
    Leases(),
    LeaseObserver(),
  )
  for shard in range(plan.num_shards):
    draft.add(shard, vectors[plan.rows(shard)])
  directory, folder = draft.directory, draft.local_folder("scann")
  index.save(folder)
  publish.publish(
    directory,
    Manifest(
      version=version,
      step=plan.step,
      checkpoint_unix_secs=plan.checkpoint_unix_secs,
      corpus_fingerprint=corpus.fingerprint,
      tokenizer_fingerprint=corpus.tokenizer_fingerprint,
      embedder_hash=plan.embedder_hash,
      num_passages=len(vectors),
      dim=vectors.shape[1],
      backend="scann",
      scann=dataclasses.asdict(index.parameters),
      searcher=folder.name,
      shards=tuple(shard.path for shard in draft.shards()),
      files=(
        *draft.shards(),
        describe_file(directory, directory / drafts.PARAMS_FILE),
        *draft.add_folder(folder),
      ),
      libraries={},
    ),
  )


def measure(workdir: pathlib.Path, num_passages: int) -> dict[str, float]:
  """Opens the version in the background of a loop of steps.

  Returns:
    Seconds: step (median before), longest_step (until the swap, opening
    included), hold (the longest that asking for and taking a version took)
    and open.
  """
  square = jnp.ones((_SIZE, _SIZE)) / _SIZE
  train = jax.jit(lambda x: x @ square @ square)
  state = jax.block_until_ready(train(square))

  def step() -> float:
    started = time.perf_counter()
    jax.block_until_ready(train(state))
    return time.perf_counter() - started

  before = [step() for _ in range(_STEPS)]
  run = RunConfig(refresh=RefreshConfig(policy="async"))
  corpus = StandInCorpus(num_passages)
  steps, holds, ready = [], [], None
  watcher = IndexWatcher(workdir, run, Corpora(corpus))
  with watcher:
    while ready is None:
      steps.append(step())
      started = time.perf_counter()
      if agree([watcher.standing()]).ready:
        ready = watcher.ready()
        assert ready is not None
        watcher.take(ready)
      holds.append(time.perf_counter() - started)
  return {
    "step": float(np.median(before)),
    "longest_step": max(steps),
    "hold": max(holds),
    "open": ready.open_seconds,
  }
