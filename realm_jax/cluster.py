# SPDX-License-Identifier: Apache-2.0
"""Which processes train a run together: from flags, or from the cluster.

A cluster is SLURM or Cloud TPU, as JAX recognises them, or whatever sets
`JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. JAX would
ask Kubernetes' API for these, which a pod is seldom allowed: a manifest knows
them. `REALM_HOSTS`, names by process with commas between, is for messages.
"""

import dataclasses
import os
import re

from jax._src import clusters

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# `jax.distributed.initialize` asks them, too, and connects in the same call:
# then it is too late to see that a flag says something else, or that a process
# is alone.
_CLUSTERS = {
  "SLURM": clusters.SlurmCluster,
  "Cloud TPU on GKE": clusters.GkeTpuCluster,
  "Cloud TPU": clusters.GceTpuCluster,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  """The processes of one run, and which of them this is."""

  coordinator: str = ""  # host:port where process 0 is called.
  num_processes: int = 1
  process_id: int = 0
  devices: tuple[int, ...] = ()  # Of this host; () for all that are seen.
  hosts: tuple[str, ...] = ()  # By process, where they are known.

  def __post_init__(self) -> None:
    if not 0 <= self.process_id < self.num_processes:
      raise ValueError(
        f"process_id ({self.process_id}) must be in "
        f"0..{self.num_processes - 1}, as num_processes is "
        f"{self.num_processes}."
      )
    if self.coordinator and not re.fullmatch(r".+:\d+", self.coordinator):
      raise ValueError(
        f"The coordinator must be host:port, got {self.coordinator!r}."
      )

  def name(self, process_id: int) -> str:
    """Returns "<process>", with its host if that is known."""
    if len(self.hosts) == self.num_processes:
      return f"{process_id} ({self.hosts[process_id]})"
    return str(process_id)


def find_group(
  coordinator: str = "",
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  wait_seconds: float,
) -> Group:
  """Returns the group of this process; one process where nothing says more.

  Flags that say all hold as they are; what they leave open, the cluster says.

  Args:
    coordinator: "host:port" of process 0; "" if no flag says so.
    num_processes: of the group.
    process_id: this one's, from 0.
    wait_seconds: for the name of the coordinator to be known, on Cloud TPU.

  Raises:
    ValueError: a flag contradicts the cluster, or too little is said.
  """
  if coordinator and num_processes is not None and process_id is not None:
    return Group(
      coordinator=coordinator,
      num_processes=num_processes,
      process_id=process_id,
      hosts=_hosts(),
    )
  source, found = _from_cluster(coordinator, wait_seconds)
  flags = {"num_processes": num_processes, "process_id": process_id}
  given = {name: flag for name, flag in flags.items() if flag is not None}
  alone = not coordinator and given.items() <= vars(found).items()
  if not source and not alone:
    told = [f"--coordinator={coordinator}"] if coordinator else []
    told += [f"--{name}={flag}" for name, flag in given.items()]
    raise ValueError(
      f"{' '.join(told)} does not say which processes there are, and no "
      "cluster does. Give --coordinator, --num_processes and --process_id, or "
      "none to train in one process."
    )
  for name, flag in given.items():
    if flag != (other := getattr(found, name)):
      raise ValueError(
        f"--{name}={flag} was given, and {source} says {other}. Leave the "
        "flag out, or give --coordinator, --num_processes and --process_id, "
        "which hold without it."
      )
  return found


def _from_cluster(coordinator: str, wait_seconds: float) -> tuple[str, Group]:
  """Returns the cluster's name and what it says; "" if there is none."""
  coordinator = coordinator or os.environ.get(_VARIABLES[0], "")
  told = [name for name in _VARIABLES[1:] if name in os.environ]
  if told:
    if not coordinator or len(told) < 2:
      raise ValueError(
        f"{', '.join(told)} is set. Set all of {', '.join(_VARIABLES)}, or "
        "none."
      )
    number, process = (int(os.environ[name]) for name in told)
    return "the environment", Group(
      coordinator=coordinator,
      num_processes=number,
      process_id=process,
      hosts=_hosts(),
    )
  for source, cluster in _CLUSTERS.items():
    if not cluster.is_env_present():
      continue
    number = cluster.get_process_count()
    if number == 1:
      return source, Group()
    return source, Group(
      coordinator=coordinator
      or cluster.get_coordinator_address(
        timeout_secs=int(wait_seconds),
        override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT"),
      ),
      num_processes=number,
      process_id=cluster.get_process_id(),
      devices=_slurm_devices() if source == "SLURM" else (),
      hosts=_hosts(),
    )
  return "", Group()


def _slurm_devices() -> tuple[int, ...]:
  """Returns the one that a task has, where tasks share a node's devices.

  A task alone on its node has them all; JAX would give it the first.
  """
  tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
  if (
    re.fullmatch(r"1(\(x\d+\))?", tasks) or "SLURM_GPUS_PER_TASK" in os.environ
  ):
    return ()
  return (int(os.environ["SLURM_LOCALID"]),)


def _hosts() -> tuple[str, ...]:
  return tuple(filter(None, os.environ.get("REALM_HOSTS", "").split(",")))
