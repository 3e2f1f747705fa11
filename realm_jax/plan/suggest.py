# SPDX-License-Identifier: Apache-2.0
"""Changes with which a run that does not fit would."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import NamedTuple

from realm_jax.config import Remat, RunConfig
from realm_jax.plan.estimate import Plan, Task, check_batch, make_plan

_TRIES = 4  # Of one kind of change: each doubles the last.
# A change is planned only if it might do: if what it divides, divided, comes
# as near to the limit as this.
_NEAR = 1.15
# Switches, the cheapest first -> share of the activations that is left, of
# BERT-base's: dots take 2% more FLOP, and layers 33%.
_AGAIN: dict[Remat, float] = {"dots": 0.2, "layers": 0.1}


@dataclasses.dataclass(frozen=True)
class Suggestion:
  """Flags to add, and the plan with them, which fits."""

  flags: str
  plan: Plan


class _Change(NamedTuple):
  flags: str
  run: RunConfig
  state: float  # Share of the state that is left on a device.
  activations: float  # Share of the activations that is left.


def suggestions(plan: Plan) -> list[Suggestion]:
  """Returns the smallest change of each kind that fits, as planned anew.

  Where none does alone, each is tried with the state shared out over a host.
  None helps a host whose memory is too small for the index.
  """
  if not plan.fits_hosts:
    return []
  alone = list(_that_fit(plan, _Change("", plan.task.run, 1.0, 1.0)))
  if alone:
    return alone
  return [
    suggestion
    for sharded in list(_more_fsdp(plan.task))[-1:]
    for suggestion in _that_fit(plan, sharded)
  ]


def _that_fit(plan: Plan, first: _Change) -> Iterator[Suggestion]:
  """Yields, after a first change, the smallest of each kind that fits."""
  task = dataclasses.replace(plan.task, run=first.run)
  for changes in _KINDS:
    for change in changes(task):
      both = _Change(
        f"{first.flags} {change.flags}".strip(),
        change.run,
        first.state * change.state,
        first.activations * change.activations,
      )
      changed = dataclasses.replace(task, run=both.run)
      if not (_might_fit(plan, both) and _divides(changed)):
        continue
      found = make_plan(changed)
      if found.fits:
        yield Suggestion(both.flags, found)
        break


def _might_fit(plan: Plan, change: _Change) -> bool:
  cost = plan.cost
  state = cost.params + cost.moments + cost.gradients
  needed = state * change.state + cost.activations * change.activations
  return needed + plan.device_index <= _NEAR * plan.device_limit


def _divides(task: Task) -> bool:
  try:
    check_batch(task)
  except ValueError:
    return False
  return True


def _more_parts(task: Task) -> Iterator[_Change]:
  """The same batch in more parts: the same update, about as fast."""
  run = task.run
  if run.stage in ("ict", "dpr"):
    return  # Their losses are over all pairs of a batch.
  for doubled in range(1, _TRIES + 1):
    parts = run.optimizer.accumulate_steps * 2**doubled
    if run.batch_size % parts == 0:
      optimizer = dataclasses.replace(run.optimizer, accumulate_steps=parts)
      yield _Change(
        f"--config.optimizer.accumulate_steps={parts}",
        dataclasses.replace(run, optimizer=optimizer),
        1.0,
        0.5**doubled,
      )


def _kept_less(task: Task) -> Iterator[_Change]:
  """The same update with less kept, and more computed twice."""
  run = task.run
  switches = list(_AGAIN)
  first = switches.index(run.remat) + 1 if run.remat in switches else 0
  for remat in switches[first:]:
    yield _Change(
      f"--config.remat={remat}",
      dataclasses.replace(run, remat=remat),
      1.0,
      _AGAIN[remat] / _AGAIN.get(run.remat, 1.0),
    )


def _more_fsdp(task: Task) -> Iterator[_Change]:
  """The same update with the state shared out, up to a whole host."""
  before = task.run.mesh.fsdp
  fsdp = 2 * before
  while fsdp <= task.devices.on_host and task.devices.count % fsdp == 0:
    mesh = dataclasses.replace(task.run.mesh, data=-1, fsdp=fsdp)
    yield _Change(
      f"--config.mesh.data=-1 --config.mesh.fsdp={fsdp}",
      dataclasses.replace(task.run, mesh=mesh),
      before / fsdp,
      1.0,
    )
    fsdp *= 2


def _fewer_candidates(task: Task) -> Iterator[_Change]:
  """Another model: each query sees fewer passages."""
  run = task.run
  before = run.retrieval.num_candidates
  count = before // 2
  while run.stage == "realm" and count >= 2:
    retrieval = dataclasses.replace(run.retrieval, num_candidates=count)
    yield _Change(
      f"--config.retrieval.num_candidates={count}",
      dataclasses.replace(run, retrieval=retrieval),
      1.0,
      count / before,
    )
    count //= 2


def _smaller_batch(task: Task) -> Iterator[_Change]:
  """Another run: with a smaller batch."""
  for halved in range(1, _TRIES + 1):
    size = task.run.batch_size // 2**halved
    if size and size % task.run.optimizer.accumulate_steps == 0:
      run = dataclasses.replace(task.run, batch_size=size)
      yield _Change(f"--config.batch_size={size}", run, 1.0, 0.5**halved)


_KINDS: tuple[Callable[[Task], Iterator[_Change]], ...] = (
  _more_parts,
  _kept_less,
  _more_fsdp,
  _fewer_candidates,
  _smaller_batch,
)
