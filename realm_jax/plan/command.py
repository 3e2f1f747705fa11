# SPDX-License-Identifier: Apache-2.0
"""`realm plan`."""

import json

import jax
import rich.console

from realm_jax.config import RunConfig
from realm_jax.plan import report
from realm_jax.plan.compiled import devices_needed
from realm_jax.plan.devices import parse_devices
from realm_jax.plan.estimate import Task, make_plan
from realm_jax.plan.suggest import Suggestion, suggestions


def run_plan(
  run: RunConfig,
  *,
  devices: str,
  builder_devices: str,
  passages: int,
  efficiency: float,
) -> bool:
  """Prints a plan, then its figures as one line of JSON.

  Args:
    run: the config.
    devices: <kind>:<count> that train.
    builder_devices: that embed; "" for the same.
    passages: N; 0 for the corpus' own.
    efficiency: share of the peak FLOP/s that matrix products reach.

  Returns:
    Whether the run fits.

  Raises:
    ValueError: the config does not fit the devices' number, or its data.
  """
  trainer = parse_devices(devices)
  task = Task(
    run=run,
    devices=trainer,
    builders=parse_devices(builder_devices) if builder_devices else trainer,
    num_passages=passages,
    efficiency=efficiency,
  )
  _simulate_devices(task)
  plan = make_plan(task)
  console = rich.console.Console()
  report.show(plan, console)
  found: list[Suggestion] = []
  if not plan.fits:
    with console.status("Looking for what would fit"):
      found = suggestions(plan)
    report.show_refusal(plan, found, console)
  print(json.dumps(report.figures(plan, found)))
  return plan.fits


def _simulate_devices(task: Task) -> None:
  """Has JAX make as many CPU devices as any of the plans compiles for.

  No accelerator of this machine is touched.
  """
  _, fsdp = task.mesh
  most = devices_needed(task.devices.count, max(fsdp, task.devices.on_host))
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", most)
