# SPDX-License-Identifier: Apache-2.0
"""What a step costs a device, from the update that training compiles.

It is compiled for CPU devices, and nothing of the model's size is allocated.
XLA for a CPU needs minutes for two stacks of 12 layers, so stacks of a few
layers are compiled and the rest is added: the layers are alike, and each adds
as much as the one before (`extended`).
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
from typing import Any

import jax
from jax.sharding import Mesh

from realm_jax import forward, sharding
from realm_jax.config import MeshConfig, RunConfig
from realm_jax.index.embed import make_embed_rows
from realm_jax.plan import hlo
from realm_jax.plan.batches import Batches, batches_of
from realm_jax.shapes import Batch
from realm_jax.train.initial import random_tower
from realm_jax.train.losses import LOSSES
from realm_jax.train.optimizer import FROZEN, part_of
from realm_jax.train.program import Program

# The program is only looked at: spare LLVM's optimiser.
_OPTIONS: dict[str, str | bool] = {
  "xla_backend_optimization_level": "0",
  "xla_llvm_disable_expensive_passes": True,
}
# More devices along `data` would not change a device's program, but for the
# size of what it gathers from all of them.
_COMPILED_DATA = 2
# Activations lead where temporaries are so many times the gradients: the
# update itself takes less.
_LED = 4
# The first layer finds room that the rest left: from two on, each adds as much
# as the one before.
_FEWEST = 2
# Products on a CPU pack their operands in memory that XLA's analysis leaves
# out: a twentieth of the activations of the small model of
# benchmarks/step_memory.py.
_PACKED_ON_CPU = 1.05
_GATHERED = (("all-gather", "data"), ("all-gather", "both"))
# Figures by name; by (op, mesh axis) the bytes of arrays that are exchanged.
Figures = Mapping[Any, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
  """What one device holds and does in a step with the largest batch.

  Attributes:
    params: bytes of its share of the parameters.
    moments: bytes of its share of the optimiser's state.
    gradients: bytes of its share of the gradients.
    batch: bytes of its share of the batch.
    activations: bytes of all else that is in memory at the worst moment.
    flops: of its matrix products.
    product_bytes: that those read and write.
    moved: (collective, mesh axis) -> bytes of the arrays it is about.
    batches: which shapes these are the costs of.
  """

  params: float
  moments: float
  gradients: float
  batch: float
  activations: float
  flops: float
  product_bytes: float
  moved: Mapping[tuple[str, str], float]
  batches: Batches

  @property
  def memory(self) -> float:
    """Bytes of a device's memory."""
    held = self.params + self.moments + self.batch
    return held + self.gradients + self.activations


def devices_needed(data: int, fsdp: int) -> int:
  """Returns how many CPU devices `step_cost` compiles for."""
  return min(data, _COMPILED_DATA) * fsdp


def step_cost(
  run: RunConfig,
  data: int,
  fsdp: int,
  *,
  num_hosts: int,
  on_cpu: bool = False,
) -> StepCost:
  """Compiles a run's update for `data` x `fsdp` devices of CPUs.

  Each device has its share of the batch, but `data` is cut to two. What is
  gathered along it (parameters never are, as they are not split along it)
  is counted as of all devices.

  Args:
    run: the config.
    data: size of that axis of the mesh.
    fsdp: likewise.
    num_hosts: of the run.
    on_cpu: it will run on CPUs, too, where bfloat16 saves no memory.

  Raises:
    ValueError: there are too few CPU devices, or the config does not fit
      its data.
  """
  num_devices = devices_needed(data, fsdp)
  devices = jax.devices("cpu")[:num_devices]
  mesh_config = MeshConfig(fsdp=fsdp)
  mesh = sharding.make_mesh(mesh_config, devices)
  share = dataclasses.replace(
    run,
    batch_size=run.batch_size // (data * fsdp) * num_devices,
    mesh=mesh_config,
  )
  batches = batches_of(share, num_devices, num_hosts)
  state = Program(share, mesh).abstract_state
  params = _device_bytes(state.params)
  gradients = _trained_bytes(run, state.params)
  measure = functools.partial(_measure, share, mesh, batches.largest, on_cpu)
  found = extended(_stacks(share, state.params), measure)
  grown = data * fsdp / num_devices
  moved = {
    key: size * (grown if key in _GATHERED else 1.0)
    for key, size in found.items()
    if isinstance(key, tuple)
  }
  temporary = found["temporary"] + (grown - 1) * found["gathered"]
  return StepCost(
    params=params,
    moments=_device_bytes(state.opt_state),
    gradients=gradients,
    batch=_num_bytes(batches.largest) / num_devices,
    activations=max(0.0, temporary - gradients),
    flops=found["flops"],
    product_bytes=found["product_bytes"],
    moved=moved,
    batches=batches,
  )


def extended(
  num_layers: Mapping[str, int],
  measure: Callable[[Mapping[str, int]], Figures],
) -> Figures:
  """Returns the figures of whole stacks from those of stacks cut short.

  Every figure is the sum of a constant and of as much for each layer, but for
  the peak of memory: where a few layers' activations are less than what the
  update itself needs, they do not show. Then more layers are measured.

  Args:
    num_layers: of each stack.
    measure: numbers of layers -> figures, of which "temporary" are the bytes
      of temporaries, and "update" those of the update.
  """
  base = {name: min(_FEWEST, n) for name, n in num_layers.items()}
  first = measure(base)
  while first["temporary"] < _LED * first["update"] and base != num_layers:
    base = {name: min(2 * n, num_layers[name]) for name, n in base.items()}
    first = measure(base)
  total = dict(first)
  for stacks in _alike(num_layers):
    missing = num_layers[stacks[0]] - base[stacks[0]]
    if missing:
      more = {name: n + (name in stacks) for name, n in base.items()}
      second = measure(more)
      for key in {*first, *second}:
        grown = second.get(key, 0.0) - first.get(key, 0.0)
        total[key] = total.get(key, 0.0) + missing * grown
  return total


def _alike(num_layers: Mapping[str, int]) -> list[tuple[str, ...]]:
  """Groups stacks of as many layers: those are grown together."""
  groups: dict[int, list[str]] = {}
  for name, number in num_layers.items():
    groups.setdefault(number, []).append(name)
  return [tuple(names) for names in groups.values()]


def _stacks(run: RunConfig, params: Any) -> dict[str, int]:
  """Returns the layers of each stack that the update runs."""
  stacks = {}
  if "retriever" in params:
    stacks["embedder"] = run.embedder.bert.num_layers
  if "encoder" in params or "reader" in params:
    stacks["encoder"] = run.encoder.num_layers
  return stacks


def with_layers(run: RunConfig, num_layers: Mapping[str, int]) -> RunConfig:
  """Returns the run with stacks of so many layers."""
  bert = dataclasses.replace(
    run.embedder.bert,
    num_layers=num_layers.get("embedder", run.embedder.bert.num_layers),
  )
  return dataclasses.replace(
    run,
    embedder=dataclasses.replace(run.embedder, bert=bert),
    encoder=dataclasses.replace(
      run.encoder,
      num_layers=num_layers.get("encoder", run.encoder.num_layers),
    ),
  )


def _measure(
  run: RunConfig,
  mesh: Mesh,
  batch: Batch,
  on_cpu: bool,
  num_layers: Mapping[str, int],
) -> Figures:
  cut = with_layers(run, num_layers)
  program = Program(cut, mesh)
  params = program.abstract_state.params
  figures = _figures(program.lower(batch), mesh)
  update = _trained_bytes(cut, params)
  activations = max(0.0, figures["temporary"] - update)
  activations *= _PACKED_ON_CPU if on_cpu else _narrowing(cut, params, batch)
  return {**figures, "temporary": update + activations, "update": update}


def _narrowing(run: RunConfig, params: Any, batch: Batch) -> float:
  """Returns how much less a dtype keeps for the backward pass than float32.

  XLA for a CPU widens bfloat16 to float32, almost wherever it stands, and so
  its temporaries are as large; an accelerator's are not. What is computed
  again is taken to be as narrow as if it were kept.
  """
  run = dataclasses.replace(run, remat="none")
  wide = dataclasses.replace(
    run,
    encoder=dataclasses.replace(run.encoder, dtype="float32"),
    embedder=dataclasses.replace(
      run.embedder,
      bert=dataclasses.replace(run.embedder.bert, dtype="float32"),
    ),
  )
  if wide == run:
    return 1.0
  return _kept_bytes(run, params, batch) / _kept_bytes(wide, params, batch)


def _kept_bytes(run: RunConfig, params: Any, batch: Batch) -> float:
  """Returns what a loss' backward pass takes over from its forward pass."""
  loss = LOSSES[run.stage](run)

  def pullback(params: Any, batch: Batch, rng: jax.Array) -> Any:
    return jax.vjp(lambda tree: loss(tree, batch, rng)["loss"][0], params)[1]

  return _num_bytes(jax.eval_shape(pullback, params, batch, jax.random.key(0)))


def _figures(lowered: jax.stages.Lowered, mesh: Mesh) -> dict[Any, float]:
  compiled = lowered.compile(compiler_options=_OPTIONS)
  memory, text = compiled.memory_analysis(), compiled.as_text()
  assert memory is not None and text is not None  # XLA for CPUs has both.
  counts = hlo.count(text)
  figures: dict[Any, float] = {
    "temporary": float(memory.temp_size_in_bytes),
    "flops": counts.flops,
    "product_bytes": counts.product_bytes,
    "gathered": 0.0,  # The largest array, from devices along `data`.
  }
  for each in counts.collectives:
    key = (each.op, _axis(each, mesh))
    figures[key] = figures.get(key, 0.0) + each.num_bytes * each.times
    if key in _GATHERED:
      figures["gathered"] = max(figures["gathered"], float(each.num_bytes))
  return figures


def _axis(each: hlo.Collective, mesh: Mesh) -> str:
  """Returns the mesh axis that a group runs along: data, fsdp or both."""
  if each.members == mesh.size:
    return "both"
  return "data" if each.stride == mesh.shape["fsdp"] else "fsdp"


@dataclasses.dataclass(frozen=True)
class EmbeddingCost:
  """What embedding a passage of the longest kind costs.

  Attributes:
    flops: of its matrix products.
    product_bytes: that those read and write.
  """

  flops: float
  product_bytes: float


def embedding_cost(run: RunConfig) -> EmbeddingCost:
  """Compiles the index builder's forward pass for one CPU device."""
  # Of the config, what it depends on: plans of one run share it.
  return _embedding_cost(
    RunConfig(lengths=run.lengths, embedder=run.embedder, encoder=run.encoder)
  )


@functools.cache
def _embedding_cost(run: RunConfig) -> EmbeddingCost:
  mesh = sharding.make_mesh(MeshConfig(), jax.devices("cpu")[:1])
  length = run.lengths.passage
  rows = max(1, forward.TOKENS_PER_ACCELERATOR // length)
  ids = jax.ShapeDtypeStruct((rows, length), "int32")
  mask = jax.ShapeDtypeStruct((rows, length), "bool")

  def measure(num_layers: Mapping[str, int]) -> Figures:
    cut = with_layers(run, num_layers)
    tower = jax.eval_shape(lambda: random_tower(cut, jax.random.key(0)))
    lowered = make_embed_rows(cut.embedder, mesh).lower(
      tower, {"ids": ids, "segments": ids, "mask": mask}
    )
    return {**_figures(lowered, mesh), "update": 0.0}

  found = extended({"embedder": run.embedder.bert.num_layers}, measure)
  return EmbeddingCost(found["flops"] / rows, found["product_bytes"] / rows)


def _trained_bytes(run: RunConfig, params: Any) -> float:
  """Returns the bytes of a device's gradients; frozen parts have none."""

  def of_leaf(path: Any, leaf: Any) -> float:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return 0.0 if part_of(run, name) == FROZEN else _share_bytes(leaf)

  sizes = jax.tree_util.tree_map_with_path(of_leaf, params)
  return sum(jax.tree.leaves(sizes), 0.0)


def _device_bytes(tree: Any) -> float:
  return sum(map(_share_bytes, jax.tree.leaves(tree)), 0.0)


def _share_bytes(leaf: Any) -> float:
  """Returns the bytes of a leaf that one device holds."""
  shape = leaf.sharding.shard_shape(leaf.shape)
  return float(math.prod(shape) * leaf.dtype.itemsize)


def _num_bytes(tree: Any) -> float:
  return float(
    sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
  )
