# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: the mesh, the parameters' layout, batches to devices.

This file alone names mesh axes. `data` splits the batch; `fsdp` splits the
batch too and, beyond that, the parameters and the optimiser's moments.
"""

import collections
from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from realm_jax.config import MeshConfig, RunConfig

BATCH_AXES = ("data", "fsdp")
# Smaller leaves are not worth a gather: they are held whole by every device.
MIN_SHARDED_SIZE = 2**14


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a (data, fsdp) mesh over all devices, or over those given.

  Raises:
    ValueError: the axes' sizes do not multiply to the number of devices, or
      processes have unequal numbers of devices.
  """
  devices = by_process(jax.devices() if devices is None else devices)
  grid = np.array(devices, object).reshape(axis_sizes(config, len(devices)))
  # Auto, not the default Explicit: linen's Embed refuses Explicit axes.
  return Mesh(grid, BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def by_process(devices: Sequence[Any]) -> list[Any]:
  """Returns devices in the order of their processes.

  So a process' rows stand in the global batch where its number says, as the
  `order` of packed rows has it. `jax.make_mesh` would mix the processes of
  TPUs, whose devices it orders by the network between them.

  Raises:
    ValueError: a process has more devices than another, and each brings as
      many rows of a batch.
  """
  counts = collections.Counter(device.process_index for device in devices)
  ranked = counts.most_common()
  (most, many), (least, few) = ranked[0], ranked[-1]
  if many > few:
    raise ValueError(
      f"Process {most} has {many} devices and process {least} has {few}, but "
      "each brings as many rows of a batch. Start processes with as many "
      "devices each."
    )
  return sorted(devices, key=lambda device: (device.process_index, device.id))


def axis_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int]:
  """Returns the sizes of (data, fsdp) over so many devices.

  Raises:
    ValueError: they do not multiply to the number of devices.
  """
  fsdp = config.fsdp
  data = num_devices // fsdp if config.data == -1 else config.data
  if data * fsdp != num_devices or data < 1:
    raise ValueError(
      f"mesh.data={config.data} x mesh.fsdp={fsdp} does not cover "
      f"{num_devices} devices. Let mesh.fsdp divide them, and set mesh.data=-1 "
      "to use what it leaves."
    )
  return data, fsdp


def local_mesh() -> Mesh:
  """This process's devices alone: for work that no other host joins."""
  return make_mesh(MeshConfig(), jax.local_devices())


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """The first axis, or another, is split over all devices."""
  return NamedSharding(mesh, P(*[None] * axis, BATCH_AXES))


def state_shardings(state: Any, mesh: Mesh) -> Any:
  """Maps each leaf of a state to its sharding.

  A leaf of at least MIN_SHARDED_SIZE numbers is split over `fsdp` along its
  longest axis that divides; every other leaf is replicated.
  """
  ways = mesh.shape["fsdp"]

  def place(leaf: Any) -> NamedSharding:
    shape = leaf.shape
    if ways == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
      return replicated(mesh)
    splittable = [i for i, size in enumerate(shape) if size % ways == 0]
    if not splittable:
      return replicated(mesh)
    axis = max(splittable, key=lambda i: shape[i])
    return NamedSharding(mesh, P(*[None] * axis, "fsdp"))

  return jax.tree.map(place, state)


def gather_for_use(layout: Any, mesh: Mesh) -> Callable[[Any], Any]:
  """Returns what has split parameters whole while they are computed with.

  Their gradients are split again as soon as they are there (ZeRO: Rajbhandari
  et al., 2020). Left to themselves, compilers split a table's look-ups as the
  table is, and then hold every row's activations on every device.

  Args:
    layout: the parameters' shardings at rest, as a tree.
    mesh: of the devices.
  """
  whole = replicated(mesh)
  if mesh.shape["fsdp"] == 1:
    return lambda params: params  # They are whole at rest.

  @jax.custom_vjp
  def gather(params: Any) -> Any:
    return jax.lax.with_sharding_constraint(params, whole)

  def forward(params: Any) -> tuple[Any, None]:
    return gather(params), None

  def backward(_: None, grads: Any) -> tuple[Any]:
    # Summed whole, then split: else the sums would be split as a table is.
    summed = jax.lax.with_sharding_constraint(grads, whole)
    return (jax.lax.with_sharding_constraint(summed, layout),)

  gather.defvjp(forward, backward)
  return gather


def check_batch(run: RunConfig, mesh: Mesh) -> None:
  """Raises ValueError unless each part of a batch divides over the devices."""
  num_parts = run.optimizer.accumulate_steps
  name = "batch_size" + " / optimizer.accumulate_steps" * (num_parts > 1)
  rows = run.batch_size // num_parts
  if rows % mesh.size:
    fewer = max(n for n in range(1, mesh.size) if rows % n == 0)
    multiple = rows // mesh.size * mesh.size or mesh.size
    raise ValueError(
      f"{name} is {rows}, which does not divide over {mesh.size} devices. Use "
      f"{fewer} of them; or, in a new run, a multiple of {mesh.size}, such as "
      f"{multiple}."
    )


def to_global(batch: Any, mesh: Mesh, axis: int = 0) -> Any:
  """Puts this host's rows of a batch on its devices, as global arrays.

  `axis` is that of the rows.
  """
  sharding = batch_sharding(mesh, axis)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(
      sharding, np.asarray(rows)
    ),
    batch,
  )
