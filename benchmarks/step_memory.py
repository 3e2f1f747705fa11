# SPDX-License-Identifier: Apache-2.0
"""Holds `realm plan`'s memory of a device against what real steps take.

    python -m benchmarks.step_memory

Each row is a process with 8 simulated CPU devices that trains stage `realm` on
random pieces: the peak of its resident memory over what it held before the
state was made, shared out over the devices. It has trained once before, and
so has its threads and code already.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
import dataclasses
import gc
import itertools
import multiprocessing
import pathlib
import re
from typing import get_args

from absl import app
import jax
import numpy as np

from realm_jax import allocator, sharding
from realm_jax.config import (
  BertConfig,
  EmbedderConfig,
  LengthConfig,
  MeshConfig,
  Remat,
  RetrievalConfig,
  RunConfig,
)
from realm_jax.data.packing import SLOTS
from realm_jax.plan import compiled
from realm_jax.plan.batches import full_rows
from realm_jax.shapes import Batch
from realm_jax.train.program import Program

DEVICES = 8
_SMALL = BertConfig(
  vocab_size=8192,
  hidden_size=128,
  num_layers=2,
  num_heads=2,
  mlp_size=512,
  max_positions=128,
)
SIZES = {
  "small": _SMALL,
  "medium": dataclasses.replace(
    _SMALL, hidden_size=192, num_layers=6, num_heads=4, mlp_size=768
  ),
}
_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Case:
  """A model, and how 8 devices train it."""

  size: str
  fsdp: int
  remat: Remat

  @property
  def run(self) -> RunConfig:
    """Its config: one query a device."""
    bert = SIZES[self.size]
    return RunConfig(
      batch_size=DEVICES,
      lengths=LengthConfig(query=32, passage=96, joint=128, masks=10),
      embedder=EmbedderConfig(bert=bert),
      encoder=bert,
      retrieval=RetrievalConfig(num_candidates=4),
      mesh=MeshConfig(fsdp=self.fsdp),
      remat=self.remat,
    )


CASES = [
  Case(size, fsdp, remat)
  for size, remat, fsdp in itertools.product(
    SIZES, get_args(Remat), (1, 4, DEVICES)
  )
]


class Trial:
  """A run that is planned and compiled; its process is for nothing else."""

  def __init__(self, run: RunConfig) -> None:
    """Simulates the devices: JAX must not have been used yet."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    self.cost = compiled.step_cost(
      run,
      *sharding.axis_sizes(run.mesh, DEVICES),
      num_hosts=1,
      on_cpu=True,
    )
    self._program = Program(run, sharding.make_mesh(run.mesh))
    self._batch = _random_batch(run)
    self._program.compile([self._batch])

  def peak(self) -> float:
    """Trains some steps; returns the bytes that they took of each device."""
    self._steps()  # What the process gets at its first step, it keeps.
    before = _settled()
    return (self._steps() - before) / DEVICES

  def _steps(self) -> float:
    """Returns the most bytes that the process had meanwhile."""
    state = self._program.first_state()
    jax.block_until_ready(state)
    _settled()  # As a trainer does before its first step.
    _forget_peak()
    for _ in range(_STEPS):
      state, sums = self._program.update(state, self._batch)
      jax.block_until_ready(sums)
    return _resident("VmHWM")


def _random_batch(run: RunConfig) -> Batch:
  """Returns full rows, each on a line of its own."""
  rng = np.random.default_rng(0)
  batch = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, leaf.dtype), full_rows(run)
  )
  for rows in (batch["query"], batch["passages"], batch["joints"]):
    rows["ids"] = rng.integers(
      run.encoder.vocab_size, size=rows["ids"].shape, dtype=np.int32
    )
  for rows in (batch["passages"], batch["joints"]):
    rows["starts"][:] = 0
    rows["order"][:] = SLOTS * np.arange(len(rows["order"]))
  return batch


def _settled() -> float:
  """Returns the bytes that are resident once what is free is given back."""
  gc.collect()
  allocator.release_freed_memory()
  return _resident("VmRSS")


def _resident(field: str) -> float:
  status = pathlib.Path("/proc/self/status").read_text()
  found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
  assert found is not None  # Linux has both.
  return 1024.0 * int(found[1])


def _forget_peak() -> None:
  pathlib.Path("/proc/self/clear_refs").write_text("5")


def planned_and_measured(case: Case) -> tuple[float, float]:
  """Returns the bytes of a device by the plan, and as its steps took them."""
  trial = Trial(case.run)
  return trial.cost.memory, trial.peak()


def one_at_a_time() -> ProcessPoolExecutor:
  """Returns what runs each of its calls in a new process."""
  return ProcessPoolExecutor(
    max_workers=1,
    mp_context=multiprocessing.get_context("spawn"),
    max_tasks_per_child=1,
  )


def results(cases: list[Case]) -> Iterator[tuple[float, float]]:
  """Yields `planned_and_measured` of each, in processes of their own."""
  with one_at_a_time() as processes:
    for case in cases:
      yield processes.submit(planned_and_measured, case).result()


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  print("| model | data x fsdp | remat | planned MB | measured MB | off |")
  print("|---|---|---|---|---|---|", flush=True)
  for case, (planned, measured) in zip(CASES, results(CASES), strict=True):
    print(
      f"| {case.size} | {DEVICES // case.fsdp} x {case.fsdp} | {case.remat} "
      f"| {planned / 1e6:.1f} | {measured / 1e6:.1f} "
      f"| {measured / planned - 1:+.1%} |",
      flush=True,
    )


if __name__ == "__main__":
  app.run(main)
