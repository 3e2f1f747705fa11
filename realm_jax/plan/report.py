# SPDX-License-Identifier: Apache-2.0
"""A plan as a page of text, and as JSON."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import rich.box
import rich.console
import rich.table

from realm_jax.plan import timing
from realm_jax.plan.compiled import devices_needed
from realm_jax.plan.estimate import Plan, Refresh
from realm_jax.plan.suggest import Suggestion

_UNITS = ("", "k", "M", "G", "T", "P")


def amount(value: float, unit: str) -> str:
  """Returns three digits with a decimal prefix: 1.23 GB."""
  power = 0
  while abs(value) >= 999.5 and power < len(_UNITS) - 1:
    value, power = value / 1000, power + 1
  digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
  return f"{value:.{digits}f} {_UNITS[power]}{unit}"


def duration(seconds: float) -> str:
  """Returns seconds in the unit that people would say them in."""
  if seconds < 1:
    return f"{1000 * seconds:.3g} ms"
  for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
    if seconds >= 2 * size:
      return f"{seconds / size:.1f} {unit}"
  return f"{seconds:.3g} s"


def show(plan: Plan, console: rich.console.Console) -> None:
  """Prints the page."""
  task = plan.task
  run, device = task.run, task.devices.device
  data, fsdp = task.mesh
  count = task.devices.hosts
  console.print(
    f"[b]Stage {run.stage}, {plan.num_params / 1e6:,.0f} M parameters, batch "
    f"of {run.batch_size}[/b]: {plan.cost.batches.source}"
  )
  console.print(
    f"[b]{task.devices}[/b]: {device.name}; {count} host{'s'[: count - 1]}, "
    f"mesh of data={data} x fsdp={fsdp}"
  )
  console.print(
    "Compiled for CPU devices, "
    f"{devices_needed(data, fsdp)} of {task.devices.count}, with a few of the "
    "layers; the rest is alike.\n"
  )
  for title, rows in (
    ("Memory of a device", _device_rows(plan)),
    ("Memory of a host", _host_rows(plan)),
    ("On disk", _disk_rows(plan)),
    ("A step", _step_rows(plan)),
    *([("The index", _index_rows(plan))] if plan.refresh else []),
  ):
    console.print(_table(title, rows))


def _table(title: str, rows: Sequence[tuple[str, str, str]]) -> Any:
  table = rich.table.Table(
    title=f"[b]{title}[/b]",
    title_justify="left",
    box=rich.box.SIMPLE,
    show_header=False,
    pad_edge=False,
  )
  table.add_column(min_width=24)
  table.add_column(justify="right", min_width=12)
  table.add_column(overflow="fold")
  for row in rows:
    table.add_row(*row)
  return table


def _device_rows(plan: Plan) -> list[tuple[str, str, str]]:
  cost, device = plan.cost, plan.task.devices.device
  run = plan.task.run
  fsdp = plan.task.mesh[1]
  shared = f"a share of 1/{fsdp}" if fsdp > 1 else "whole on every device"
  rows = [
    ("parameters", amount(cost.params, "B"), shared),
    ("optimiser state", amount(cost.moments, "B"), "two moments of each"),
    ("gradients", amount(cost.gradients, "B"), ""),
    (
      "activations",
      amount(cost.activations, "B"),
      f"at the peak, as XLA for a CPU lays them out, in {run.encoder.dtype}",
    ),
    ("batch", amount(cost.batch, "B"), ""),
  ]
  if plan.device_index:
    rows.append(
      ("index", amount(plan.device_index, "B"), "two versions, while swapping")
    )
  limit = (
    "of the host's, shared out"
    if device.is_cpu
    else f"{device.usable:.0%} of {amount(device.memory, 'B')}"
  )
  return [
    *rows,
    ("[b]in all[/b]", amount(plan.device_memory, "B"), _verdict(plan)),
    ("there is", amount(plan.device_limit, "B"), limit),
  ]


def _verdict(plan: Plan) -> str:
  return "fits" if plan.fits_devices else "[red b]does not fit[/red b]"


def _host_rows(plan: Plan) -> list[tuple[str, str, str]]:
  host, device = plan.host, plan.task.devices.device
  backend = plan.task.run.retrieval.backend
  guess = "" if plan.corpus.known else ", as if all were full"
  rows = [
    (
      "corpus",
      amount(host.corpus, "B"),
      f"mapped: {plan.corpus.passages:,} passages{guess}",
    )
  ]
  if plan.refresh:
    rows += [
      (
        "vectors",
        amount(host.vectors, "B"),
        "mapped: two versions, while swapping",
      ),
      ("searchers", amount(host.searchers, "B"), f"{backend}: two, likewise"),
    ]
  fits = "fits" if plan.fits_hosts else "[red b]does not fit[/red b]"
  if plan.fits_hosts and host.total > device.host_memory:
    fits = "fits, and reads the disk for what is mapped: slower"
  return [
    *rows,
    ("[b]in all[/b]", amount(host.total, "B"), fits),
    ("there is", amount(device.host_memory, "B"), ""),
  ]


def _disk_rows(plan: Plan) -> list[tuple[str, str, str]]:
  disk, run = plan.disk, plan.task.run
  rows = [
    ("corpus", amount(disk.corpus, "B"), ""),
    (
      "checkpoints",
      amount(disk.checkpoints, "B"),
      f"{run.keep_checkpoints} + 1 of {amount(disk.checkpoint, 'B')}",
    ),
  ]
  if plan.refresh:
    rows.append(
      (
        "index versions",
        amount(disk.indexes, "B"),
        f"{run.refresh.keep_versions} + 1 of {amount(disk.index, 'B')}",
      )
    )
  return rows


def _step_rows(plan: Plan) -> list[tuple[str, str, str]]:
  task, step, cost = plan.task, plan.step, plan.cost
  device, dtype = task.devices.device, task.run.encoder.dtype
  flops = cost.flops * cost.batches.typical
  everywhere = amount(flops * task.devices.count, "FLOP")
  peak = amount(device.flops[dtype], "FLOP/s")
  return [
    (
      "compute",
      duration(step.compute),
      f"{amount(flops, 'FLOP')} a device ({everywhere} in all), at "
      f"{task.efficiency:.0%} of {peak} ({dtype})",
    ),
    (
      "memory bandwidth",
      duration(step.memory),
      "at least: what the products and the update read and write, at "
      f"{amount(device.bandwidth, 'B/s')}",
    ),
    ("network", duration(step.network), _sent(plan)),
    (
      "[b]a step[/b]",
      duration(step.longest),
      f"limited by {step.limit}, as the rest goes on beside it",
    ),
    (
      "the run",
      duration(step.longest * task.run.num_steps),
      f"{task.run.num_steps:,} steps",
    ),
  ]


def _sent(plan: Plan) -> str:
  names = {"data": "data", "fsdp": "fsdp", "both": "all devices"}
  sent = [
    f"{amount(each.num_bytes, 'B')} sent along {names[each.axis]} at "
    f"{amount(each.rate, 'B/s')}"
    for each in plan.sent
  ]
  return "; ".join(sent) or "nothing is sent"


def _index_rows(plan: Plan) -> list[tuple[str, str, str]]:
  refresh, task = plan.refresh, plan.task
  assert refresh is not None  # Asked for where there is one.
  return [
    (
      "embedding",
      duration(refresh.embedding.longest),
      f"{plan.corpus.passages:,} passages on {task.builders}, limited by "
      f"{refresh.embedding.limit}",
    ),
    (
      "searcher",
      duration(refresh.searcher),
      "at most: as measured on two cores" if refresh.searcher else "",
    ),
    ("[b]a refresh[/b]", duration(refresh.seconds), ""),
    ("staleness", f"{refresh.steps:,} steps", _staleness(plan, refresh)),
  ]


def _staleness(plan: Plan, refresh: Refresh) -> str:
  policy = plan.task.run.refresh.policy
  if policy == "never":
    return f"never refreshed: {refresh.oldest:,} steps at the end"
  if refresh.steps >= plan.task.run.num_steps:
    return "more than the run has: all of it is searched with the first index"
  waits = (
    f"; the trainer waits {duration(refresh.waits)} for each"
    if refresh.waits
    else ""
  )
  return (
    f"when it takes effect ({policy}), {refresh.oldest:,} when the next does"
    f"{waits}"
  )


def show_refusal(
  plan: Plan, found: Sequence[Suggestion], console: rich.console.Console
) -> None:
  """Prints what would fit, each planned in the same way."""
  if not plan.fits_hosts:
    console.print(
      f"[b]A host's {amount(plan.task.devices.device.host_memory, 'B')} do not "
      f"hold the searchers' {amount(plan.host.searchers, 'B')}.[/b] Use "
      "--config.retrieval.backend=device, or hosts with more."
    )
    return
  console.print(
    f"[b]A device needs {amount(plan.device_memory, 'B')} and has "
    f"{amount(plan.device_limit, 'B')}.[/b] These fit, planned in the same way:"
  )
  for each in found:
    console.print(
      f"  {each.flags}: {amount(each.plan.device_memory, 'B')}, a step of "
      f"{duration(each.plan.step.longest)}",
      soft_wrap=True,
    )
  if not found:
    console.print("  none that was tried; use more or larger devices.")


def figures(plan: Plan, found: Sequence[Suggestion] = ()) -> dict[str, Any]:
  """Returns the plan's numbers: bytes, FLOP, seconds and steps."""
  cost, task, refresh = plan.cost, plan.task, plan.refresh
  return {
    "fits": plan.fits,
    "devices": str(task.devices),
    "builder_devices": str(task.builders),
    "mesh": dict(zip(("data", "fsdp"), task.mesh, strict=True)),
    "parameters": plan.num_params,
    "shapes": cost.batches.source,
    "device_memory": {
      "params": cost.params,
      "moments": cost.moments,
      "gradients": cost.gradients,
      "activations": cost.activations,
      "batch": cost.batch,
      "index": plan.device_index,
      "total": plan.device_memory,
      "limit": plan.device_limit,
    },
    "host_memory": {
      **dataclasses.asdict(plan.host),
      "limit": task.devices.device.host_memory,
    },
    "disk": dataclasses.asdict(plan.disk),
    "flops_per_step": cost.flops * cost.batches.typical * task.devices.count,
    "sent_bytes_per_device": {each.axis: each.num_bytes for each in plan.sent},
    "step_seconds": timing.as_dict(plan.step),
    "refresh": refresh
    and {
      "passages": plan.corpus.passages,
      "embedding_seconds": timing.as_dict(refresh.embedding),
      "searcher_seconds": refresh.searcher,
      "seconds": refresh.seconds,
      "staleness_steps": refresh.steps,
      "oldest_steps": refresh.oldest,
      "trainer_waits_seconds": refresh.waits,
    },
    "would_fit": [
      {"flags": each.flags, "device_memory": each.plan.device_memory}
      for each in found
    ],
  }
