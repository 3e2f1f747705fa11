# SPDX-License-Identifier: Apache-2.0
"""Seconds, from what a device computes, reads and sends.

A roofline: whatever takes longest decides, as the rest goes on beside it.
"""

from collections.abc import Mapping
import dataclasses

from realm_jax.plan.compiled import EmbeddingCost, StepCost
from realm_jax.plan.devices import Devices

COMPUTE, MEMORY, NETWORK = "compute", "memory bandwidth", "network"
# Of what XLA for a CPU multiplies, whatever the activations' dtype.
_PRODUCT_ITEMSIZE = 4
ITEMSIZE = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Seconds:
  """How long each of them takes, and what is awaited longest."""

  compute: float
  memory: float
  network: float = 0.0

  @property
  def longest(self) -> float:
    """Seconds where all overlap."""
    return max(self.compute, self.memory, self.network)

  @property
  def limit(self) -> str:
    """What takes longest."""
    by_name = {
      COMPUTE: self.compute,
      MEMORY: self.memory,
      NETWORK: self.network,
    }
    return max(by_name, key=lambda name: by_name[name])


@dataclasses.dataclass(frozen=True)
class Sent:
  """What a device sends in a step along one axis, and at which rate."""

  axis: str  # data, fsdp or both.
  num_bytes: float
  rate: float  # Bytes a second.


def sent_by_axis(
  cost: StepCost, devices: Devices, data: int, fsdp: int
) -> list[Sent]:
  """Returns what a device sends by rings along each axis of the mesh.

  Of n devices in a ring, each sends (n - 1) / n of an array to gather it, to
  scatter its sum or to exchange parts, and twice that to reduce it.
  """
  groups = {"data": (data, fsdp), "fsdp": (fsdp, 1), "both": (data * fsdp, 1)}
  sent: dict[str, float] = {}
  for (op, axis), num_bytes in cost.moved.items():
    members, _ = groups[axis]
    share = 1.0 if op == "collective-permute" else (members - 1) / members
    times = 2 if op == "all-reduce" else 1
    sent[axis] = sent.get(axis, 0.0) + times * share * num_bytes
  return [
    Sent(axis, num_bytes, devices.sending_rate(*groups[axis]))
    for axis, num_bytes in sent.items()
  ]


def step_seconds(
  cost: StepCost,
  sent: list[Sent],
  devices: Devices,
  dtype: str,
  efficiency: float,
) -> Seconds:
  """Returns the seconds of a typical step.

  Args:
    cost: of the largest batch.
    sent: see `sent_by_axis`.
    devices: that the step runs on.
    dtype: of the activations.
    efficiency: share of the peak FLOP/s that matrix products reach.
  """
  typical = cost.batches.typical
  state = cost.params + cost.moments
  # The update reads and writes all of the state, and reads the gradients.
  update = 2 * state + cost.gradients
  products = cost.product_bytes * typical * ITEMSIZE[dtype] / _PRODUCT_ITEMSIZE
  return Seconds(
    compute=cost.flops * typical / (devices.device.flops[dtype] * efficiency),
    memory=(products + update) / devices.device.bandwidth,
    network=sum((each.num_bytes / each.rate for each in sent), 0.0),
  )


def embedding_seconds(
  cost: EmbeddingCost,
  num_passages: float,
  devices: Devices,
  dtype: str,
  efficiency: float,
) -> Seconds:
  """Returns the seconds that devices take to embed a corpus once.

  Args:
    cost: of a passage of the longest kind.
    num_passages: as many of these as cost what the corpus does.
    devices: that embed.
    dtype: of the activations.
    efficiency: see `step_seconds`.
  """
  device, share = devices.device, num_passages / devices.count
  products = cost.product_bytes * ITEMSIZE[dtype] / _PRODUCT_ITEMSIZE
  return Seconds(
    compute=share * cost.flops / (device.flops[dtype] * efficiency),
    memory=share * products / device.bandwidth,
  )


def as_dict(seconds: Seconds) -> Mapping[str, float | str]:
  """Returns the fields with what follows of them, for JSON."""
  return {
    **dataclasses.asdict(seconds),
    "longest": seconds.longest,
    "limit": seconds.limit,
  }
