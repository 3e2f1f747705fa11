# SPDX-License-Identifier: Apache-2.0
"""A plan: what a run needs on some devices, and whether it fits them."""

import dataclasses
import math
from typing import Any

import jax

from realm_jax import sharding
from realm_jax.config import InitConfig, RunConfig
from realm_jax.plan import compiled, storage, timing
from realm_jax.plan.compiled import EmbeddingCost, StepCost
from realm_jax.plan.devices import Devices
from realm_jax.plan.storage import CorpusSize, Disk, HostMemory
from realm_jax.plan.timing import Seconds, Sent
from realm_jax.shapes import Params
from realm_jax.train import initial
from realm_jax.train.optimizer import FROZEN, part_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What is planned for.

  Attributes:
    run: the config.
    devices: of the trainer.
    builders: of the index builder.
    num_passages: N; 0 for the corpus' own.
    efficiency: share of the peak FLOP/s that matrix products reach.
  """

  run: RunConfig
  devices: Devices
  builders: Devices
  num_passages: int = 0
  efficiency: float = 0.4

  @property
  def mesh(self) -> tuple[int, int]:
    """The sizes of (data, fsdp).

    Raises:
      ValueError: they do not cover the devices.
    """
    return sharding.axis_sizes(self.run.mesh, self.devices.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refresh:
  """How long an index takes, and how old it gets.

  Attributes:
    embedding: the corpus through the document tower.
    searcher: seconds for ScaNN, at most: as measured on two cores.
    steps: training steps that go by meanwhile: its age when it takes effect.
    oldest: its age when the next one does.
    waits: seconds that the trainer waits for each, under lockstep.
  """

  embedding: Seconds
  searcher: float
  steps: int
  oldest: int
  waits: float

  @property
  def seconds(self) -> float:
    """From a checkpoint to its index."""
    return self.embedding.longest + self.searcher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What a run needs, and has."""

  task: Task
  cost: StepCost
  num_params: int
  device_index: float  # Bytes of a device for an index of backend `device`.
  corpus: CorpusSize
  host: HostMemory
  disk: Disk
  sent: list[Sent]
  step: Seconds
  refresh: Refresh | None  # None where nothing is searched.

  @property
  def device_memory(self) -> float:
    """Bytes that a device needs."""
    return self.cost.memory + self.device_index

  @property
  def device_limit(self) -> float:
    """Bytes that a device has for them."""
    device = self.task.devices.device
    if not device.is_cpu:
      return device.usable_memory
    left = device.host_memory - self.host.searchers
    return max(0.0, left / self.task.devices.on_host)

  @property
  def fits_devices(self) -> bool:
    """Whether a device has as much memory as it needs."""
    return self.device_memory <= self.device_limit

  @property
  def fits_hosts(self) -> bool:
    """Whether a host can hold what the system may not drop."""
    return self.host.searchers <= self.task.devices.device.host_memory

  @property
  def fits(self) -> bool:
    """Whether the run can start."""
    return self.fits_devices and self.fits_hosts


def check_batch(task: Task) -> None:
  """Refuses a batch that training would refuse.

  Raises:
    ValueError: its rows do not divide over the devices.
  """
  run, count = task.run, task.devices.count
  parts = run.optimizer.accumulate_steps
  if run.batch_size // parts % count:
    raise ValueError(
      f"batch_size ({run.batch_size}) / optimizer.accumulate_steps ({parts}) "
      f"does not divide over {count} devices. Use a batch_size that is a "
      f"multiple of {count * parts}."
    )


def make_plan(task: Task) -> Plan:
  """Plans a run; nothing of the model's size is allocated.

  Raises:
    ValueError: the config does not fit the devices' number, or its data.
  """
  return plan_of(task, cost_of(task))


def cost_of(task: Task) -> StepCost:
  """Compiles a run's step; devices of several kinds may have one in common.

  Raises:
    ValueError: see `make_plan`.
  """
  check_batch(task)
  return compiled.step_cost(
    task.run,
    *task.mesh,
    num_hosts=task.devices.hosts,
    on_cpu=task.devices.device.is_cpu,
  )


def plan_of(task: Task, cost: StepCost) -> Plan:
  """Plans a run whose step was compiled."""
  run, devices = task.run, task.devices
  data, fsdp = task.mesh
  corpus = storage.corpus_size(run, task.num_passages)
  sent = timing.sent_by_axis(cost, devices, data, fsdp)
  step = timing.step_seconds(
    cost, sent, devices, run.encoder.dtype, task.efficiency
  )
  params = abstract_params(run)
  return Plan(
    task=task,
    cost=cost,
    num_params=_count(params),
    device_index=storage.device_index_bytes(
      run, corpus.passages, devices.on_host
    ),
    corpus=corpus,
    host=storage.host_memory(run, corpus),
    disk=storage.disk(
      run,
      corpus,
      state_bytes(run, params),
      4.0 * _count(params.get("retriever", {})),
    ),
    sent=sent,
    step=step,
    refresh=_refresh(task, corpus, step) if run.searches else None,
  )


def abstract_params(run: RunConfig) -> Params:
  """Returns the shapes of a run's parameters."""
  random = dataclasses.replace(run, init=InitConfig())
  return jax.eval_shape(lambda: initial.stage_params(random, jax.random.key(0)))


def state_bytes(run: RunConfig, params: Params) -> float:
  """Returns the bytes of a checkpoint: parameters, and two moments of each.

  All are float32; frozen parameters have no moments.
  """

  def copies(path: Any, leaf: Any) -> int:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return math.prod(leaf.shape) * (1 if part_of(run, name) == FROZEN else 3)

  sizes = jax.tree_util.tree_map_with_path(copies, params)
  return 4.0 * sum(jax.tree.leaves(sizes))


def _count(params: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _refresh(task: Task, corpus: CorpusSize, step: Seconds) -> Refresh:
  run = task.run
  longest: EmbeddingCost = compiled.embedding_cost(run)
  embedding = timing.embedding_seconds(
    longest,
    corpus.passages * corpus.tokens / run.lengths.passage,
    task.builders,
    run.embedder.bert.dtype,
    task.efficiency,
  )
  searcher = (
    corpus.passages * storage.SCANN_BUILD_SECONDS
    if run.retrieval.backend == "scann"
    else 0.0
  )
  seconds = embedding.longest + searcher
  steps, oldest, waits = _staleness(run, seconds / step.longest)
  return Refresh(
    embedding=embedding,
    searcher=searcher,
    steps=steps,
    oldest=oldest,
    waits=waits * step.longest,
  )


def _staleness(run: RunConfig, took: float) -> tuple[int, int, float]:
  """Returns an index' age when it takes effect and when the next one does.

  And how long the trainer waits for it; all in steps.

  Args:
    run: says when indexes are refreshed, and take effect.
    took: steps in which a refresh is done.
  """
  every, lag = run.refresh.largest_gap(run.num_steps), run.refresh.lag_steps
  if run.refresh.policy == "lockstep":
    return lag, lag + every, max(0.0, took - lag)
  steps = math.ceil(took)
  if run.refresh.policy == "never":
    return steps, run.num_steps, 0.0
  # The builder begins the next as soon as it is free, and there is one.
  return steps, steps + max(steps, every), 0.0
