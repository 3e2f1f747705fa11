# SPDX-License-Identifier: Apache-2.0
"""Measures training steps of the `realm` stage, alone or beside a peer.

    python -m benchmarks.train_step                        4 layers, width 256
    python -m benchmarks.train_step --lengths=real
    python -m benchmarks.train_step --preset=base          BERT-base, bfloat16
    python -m benchmarks.train_step --peer=<python of benchmarks/peers>

Search runs ahead of the device as in training: queries are embedded and an
exact index of random vectors is searched on worker threads. With `--peer` the
two take turns on the same batches, so that what else the machine does hits
both alike. The last line is JSON.
"""

from collections.abc import Iterator
import dataclasses
import json
import time
from typing import Any, cast

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.turns import Peer
from benchmarks.workload import Lengths, RowLengths, Workload, model_flop
from realm_jax import allocator, sharding
from realm_jax.config import (
  BertConfig,
  EmbedderConfig,
  RunConfig,
)
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.models.embedder import Embedder, tower
from realm_jax.shapes import Batch
from realm_jax.train.lookahead import LookAhead
from realm_jax.train.program import Program

PRESETS = {
  "small": BertConfig(
    hidden_size=256, num_layers=4, num_heads=4, mlp_size=1024
  ),
  "base": BertConfig(dtype="bfloat16"),
}

_PRESET = flags.DEFINE_enum("preset", "small", list(PRESETS), "The models.")
_LENGTHS = flags.DEFINE_enum("lengths", "full", ["full", "real"], "Of rows.")
_BATCH = flags.DEFINE_integer("batch_size", 2, "B.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps of a turn.")
_TURNS = flags.DEFINE_integer("turns", 3, "Turns.")
_PASSAGES = flags.DEFINE_integer("passages", 50_000, "In the index.")
_PEER = flags.DEFINE_string("peer", "", "Python that can import torch.")

WARMUP_STEPS = 3


class Recompiles:
  """Counts programs that XLA compiles."""

  def __init__(self) -> None:
    self.count = 0
    jax.monitoring.register_event_duration_secs_listener(self._note)

  def _note(self, event: str, duration_secs: float, **_: Any) -> None:
    del duration_secs
    self.count += event == "/jax/core/compile/backend_compile_duration"


def matmul_peak(dtype: str) -> float:
  """Returns FLOP/s of a large square matrix product, the best of many."""
  size = 2048 if jax.default_backend() == "cpu" else 8192
  square = jnp.ones((size, size), dtype)
  multiply = jax.jit(lambda a, b: a @ b)
  multiply(square, square).block_until_ready()
  best = float("inf")
  for _ in range(20):
    started = time.perf_counter()
    multiply(square, square).block_until_ready()
    best = min(best, time.perf_counter() - started)
  return 2 * size**3 / best


class Trainer:
  """Our training step, fed as in training."""

  def __init__(self, run: RunConfig, workload: Workload) -> None:
    mesh = sharding.make_mesh(run.mesh)
    self._run, self._workload = run, workload
    self._program = Program(run, mesh)
    self._state = self._program.first_state()
    embedder = Embedder(run.embedder)
    # A copy, as of a published index: training overwrites its own buffers.
    params = jax.tree.map(
      jnp.array, tower(self._state.params["retriever"], "query")
    )
    self._embed = jax.jit(
      lambda rows: embedder.apply(
        {"params": params}, **rows, deterministic=True
      )
    )
    rng = np.random.default_rng(2)
    shape = (len(workload.corpus), run.embedder.dim)
    vectors = rng.normal(size=shape).astype(np.float32)
    self._index = ExactIndex(Embeddings([vectors]))
    self._program.compile(workload.batches_of_every_shape())
    self._seen: dict[int, RowLengths] = {}
    self.batches: list[Batch] = []  # Of the last turn.
    self._next_seed = 0

  def turn(self, num_steps: int) -> "Turn":
    """Trains on `num_steps` new batches."""
    ahead = LookAhead(
      _Seeds(self._next_seed),
      lambda step: step,
      self._prepare,
      first_step=0,
      num_steps=num_steps + 1,
      depth=self._run.retrieval.lookahead,
    )
    self._next_seed += num_steps + 1
    first = ahead.next()  # Not timed: nothing is ahead of the first step.
    self._state, sums = self._program.update(self._state, first.batch)
    jax.block_until_ready(sums)
    self.batches, waited, seeds = [], 0.0, []
    started = time.perf_counter()
    for _ in range(num_steps):
      fed = ahead.next()
      self._state, sums = self._program.update(self._state, fed.batch)
      jax.block_until_ready(sums)
      waited += fed.wait_seconds
      seeds.append(fed.data_state["seed"])
      self.batches.append(fed.batch)
    seconds = time.perf_counter() - started
    ahead.close()
    lengths = [self._seen.pop(seed) for seed in seeds]
    return Turn(
      seconds=seconds / num_steps,
      wait_share=waited / seconds,
      tokens=sum(_tokens(each) for each in lengths) / num_steps,
      flop=sum(model_flop(self._run, each) for each in lengths) / num_steps,
    )

  def _prepare(self, seed: int, step: int) -> Batch:
    del step
    rng = np.random.default_rng([3, seed])
    query = self._workload.query_lengths(rng)
    queries = self._workload.queries(rng, query)
    k = self._run.retrieval.num_candidates - 1  # The null document comes too.
    found = self._index.search(np.asarray(self._embed(queries)), k).ids
    lengths = self._workload.lengths(query, found)
    self._seen[seed] = lengths
    return self._workload.batch(rng, queries, lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
  """Means of a turn's steps."""

  seconds: float
  wait_share: float  # Of the time, spent waiting for the host's search.
  tokens: float  # Real ones: padding is not counted.
  flop: float


class _Seeds:
  """A data iterator that yields 0, 1, 2, ..."""

  def __init__(self, first: int) -> None:
    self._seeds: Iterator[int] = iter(range(first, 2**31))
    self._last = first

  def __next__(self) -> int:
    self._last = next(self._seeds)
    return self._last

  def get_state(self) -> dict[str, Any]:
    return {"seed": self._last}


def _tokens(lengths: RowLengths) -> int:
  rows = (lengths.query, lengths.passage, lengths.joint)
  return int(sum(each.sum() for each in rows))


def make_run() -> RunConfig:
  """Returns the run that the flags describe: REALM's lengths, K = 8."""
  bert = PRESETS[_PRESET.value]
  return RunConfig(
    stage="realm",
    num_steps=1_000_000,
    batch_size=_BATCH.value,
    embedder=EmbedderConfig(bert=bert),
    encoder=bert,
  )


def main(argv: list[str]) -> None:
  """Prints the figures, and again as JSON."""
  del argv
  allocator.keep_freed_memory()
  run = make_run()
  workload = Workload(
    run,
    cast(Lengths, _LENGTHS.value),
    num_passages=_PASSAGES.value,
    devices=jax.device_count(),
  )
  recompiles = Recompiles()
  trainer = Trainer(run, workload)
  trainer.turn(WARMUP_STEPS)
  peers = [Peer(_PEER.value, run, padding) for padding in _paddings()]
  for peer in peers:
    peer.turn(trainer.batches)
  theirs: dict[str, list[float]] = {peer.padding: [] for peer in peers}
  turns, peak, recompiled = [], 0.0, 0
  for _ in range(_TURNS.value):
    peak = max(peak, matmul_peak(run.encoder.dtype))
    before = recompiles.count
    turns.append(trainer.turn(_STEPS.value))
    recompiled += recompiles.count - before
    for peer in peers:
      theirs[peer.padding].append(peer.turn(trainer.batches))
  for peer in peers:
    peer.close()
  report(run, turns, peak, recompiled, theirs)


def _paddings() -> list[str]:
  if not _PEER.value:
    return []
  # Its tokenizer pads to the greatest length; the second is a kindness.
  return ["max"] if _LENGTHS.value == "full" else ["max", "longest"]


def report(
  run: RunConfig,
  turns: list[Turn],
  peak: float,
  num_recompiled: int,
  peer_seconds: dict[str, list[float]],
) -> None:
  """Prints the figures: medians of the turns."""

  def median(name: str) -> float:
    return float(np.median([getattr(turn, name) for turn in turns]))

  rates = [turn.flop / turn.seconds for turn in turns]
  result: dict[str, Any] = {
    "device": jax.devices()[0].device_kind,
    "preset": _PRESET.value,
    "lengths": _LENGTHS.value,
    "batch_size": run.batch_size,
    "step_seconds": median("seconds"),
    "tokens_per_second": median("tokens") / median("seconds"),
    "model_flop_per_second": float(np.median(rates)),
    "matmul_peak_flop_per_second": peak,
    "peak_share": float(np.median(rates)) / peak,
    "wait_share": median("wait_share"),
    "recompiles_after_warmup": num_recompiled,
  }
  ours = [turn.seconds for turn in turns]
  for padding, theirs in peer_seconds.items():
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    result[f"peer_{padding}_step_seconds"] = float(np.median(theirs))
    result[f"peer_{padding}_ratio"] = float(np.median(ratios))
    result[f"peer_{padding}_ratio_range"] = [min(ratios), max(ratios)]
  for name, value in result.items():
    print(f"{name:32} {value}")
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
