# SPDX-License-Identifier: Apache-2.0
"""Pre-training at scale, on paper: what `realm plan` says, as one table.

    python -m benchmarks.scaling

BERT-base and BERT-large, 13,353,718 and 100 million passages, three sets of
devices, of which a quarter as many embed, with and without FSDP over eight.
"""

from collections.abc import Iterator
import dataclasses
import itertools

from absl import app
import jax

from experiments import pretraining
from realm_jax.config import MeshConfig, RunConfig
from realm_jax.plan import estimate, report
from realm_jax.plan.compiled import StepCost, devices_needed
from realm_jax.plan.devices import parse_devices
from realm_jax.plan.estimate import Plan, Task
from realm_jax.plan.storage import WIKIPEDIA_PASSAGES

MODELS = {
  "base": pretraining.REALM,
  "large": pretraining.large(pretraining.REALM),
}
PASSAGES = (WIKIPEDIA_PASSAGES, 100_000_000)
FSDP = 8
ROWS_AT_ONCE = 8  # Queries that a device has in memory.


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Devices that train, and those that embed."""

  name: str
  trainers: str
  builders: str


CLUSTERS = (
  Cluster("8 H100", "h100:8", "h100:2"),
  Cluster("64 H100", "h100:64", "h100:16"),
  Cluster("v5p-128", "v5p:64", "v5p:16"),  # Google counts a chip's cores.
)


def run_of(model: str, num_devices: int, fsdp: int) -> RunConfig:
  """Returns the published batch, in parts of so many rows a device."""
  run = MODELS[model]
  return dataclasses.replace(
    run,
    mesh=MeshConfig(fsdp=fsdp),
    optimizer=dataclasses.replace(
      run.optimizer,
      accumulate_steps=run.batch_size // (ROWS_AT_ONCE * num_devices),
    ),
  )


def plans() -> Iterator[tuple[str, Cluster, list[Plan]]]:
  """Yields a model, a cluster, and a plan for each number of passages."""
  costs: dict[RunConfig, StepCost] = {}  # Clusters as large have the same.
  for model, cluster, fsdp in itertools.product(MODELS, CLUSTERS, (1, FSDP)):
    devices = parse_devices(cluster.trainers)
    task = Task(
      run=run_of(model, devices.count, fsdp),
      devices=devices,
      builders=parse_devices(cluster.builders),
    )
    if task.run not in costs:
      costs[task.run] = estimate.cost_of(task)
    yield (
      model,
      cluster,
      [
        estimate.plan_of(
          dataclasses.replace(task, num_passages=number), costs[task.run]
        )
        for number in PASSAGES
      ],
    )


def line(model: str, cluster: Cluster, by_passages: list[Plan]) -> str:
  """Returns a row of the table."""
  plan = by_passages[0]
  run, cost, step = plan.task.run, plan.cost, plan.step
  state = cost.params + cost.moments + cost.gradients
  cells = [
    model,
    cluster.name,
    run.mesh.fsdp if run.mesh.fsdp > 1 else "",
    run.optimizer.accumulate_steps,
    report.amount(state, "B"),
    report.amount(cost.activations, "B"),
    report.amount(plan.device_memory, "B"),
    "yes" if plan.fits else "no",
    f"{report.duration(step.longest)}, {step.limit}",
  ]
  for each in by_passages:
    assert each.refresh is not None  # The stage searches.
    cells.append(
      f"{report.duration(each.refresh.seconds)}, {each.refresh.steps:,}"
    )
  return f"| {' | '.join(map(str, cells))} |"


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", devices_needed(FSDP, FSDP))
  heads = [
    *("model", "devices", "fsdp", "parts", "state", "activations", "in all"),
    *("fits", "a step, limit"),
    *(f"refresh, steps ({number / 1e6:.4g} M)" for number in PASSAGES),
  ]
  print(f"| {' | '.join(heads)} |")
  print("|---" * len(heads) + "|", flush=True)
  for model, cluster, by_passages in plans():
    print(line(model, cluster, by_passages), flush=True)


if __name__ == "__main__":
  app.run(main)
