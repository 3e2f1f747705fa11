# SPDX-License-Identifier: Apache-2.0
"""Batches of a stage, in order, from wherever a run stands."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from realm_jax import hosts
from realm_jax.checkpoints import RunPosition
from realm_jax.config import RunConfig
from realm_jax.index.corpora import Corpora
from realm_jax.index.swap import VersionSchedule
from realm_jax.shapes import Batch, Sums
from realm_jax.train.lookahead import Fed, LookAhead
from realm_jax.train.stages import Stage, open_stage
from realm_jax.train.stop import Stopped
from realm_jax.train.versions import Swap, Versions


class Feed:
  """Draws examples, has them prepared ahead, and knows the position.

  For stages without retrieval `versions` is None, and a batch is what the
  pipeline yields.
  """

  def __init__(
    self,
    run: RunConfig,
    stage: Stage,
    versions: Versions | None,
    first_step: int,
    position: RunPosition | None,
    stopping: Callable[[], bool],
  ) -> None:
    """See `open_feed`."""
    self._stage, self._versions = stage, versions
    self._stopping = stopping
    self._limited = run.refresh.max_staleness_steps > 0
    data = stage.batches()
    if position is not None:
      data.set_state(position.data_state)
    self._data_state = data.get_state()
    self._ahead: LookAhead[str] = LookAhead(
      data,
      versions.plan if versions else lambda step: "",
      self._prepare,
      first_step=first_step,
      num_steps=run.num_steps,
      depth=run.retrieval.lookahead,
    )

  def __enter__(self) -> "Feed":
    if self._versions:
      self._versions.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._versions:
      self._versions.close()
    self._ahead.close()

  @property
  def searches(self) -> bool:
    """Whether batches need an index."""
    return self._versions is not None

  def shapes(self) -> Iterable[Batch]:
    """Yields a batch of every shape that will be fed."""
    return self._stage.shapes()

  def next(self) -> Fed[str]:
    """Returns the next step's batch, once every host has its own.

    Raises:
      Stopped: some host was asked to stop; all are told so at once.
      Exception: what the batch's preparation raised.
    """
    fed = self._ahead.next(self._all_ready)
    self._data_state = fed.data_state
    return fed

  def _all_ready(self, ready: bool) -> bool:
    everyone = hosts.gather([self._stopping(), ready])
    if any(stopping for stopping, _ in everyone):
      raise Stopped
    return all(ready for _, ready in everyone)

  def position(self) -> RunPosition:
    """Returns where the run stands after the batch last fed."""
    schedule = self._versions.schedule if self._versions else VersionSchedule()
    return RunPosition(
      data_state=self._data_state, index_versions=tuple(schedule.entries)
    )

  def wait(self, fed: Fed[str]) -> Sums:
    """Returns what this step's retrieval cost, to be averaged."""
    if self._versions is None:
      return {}
    waits = {"retrieval/wait_seconds": (fed.wait_seconds, 1.0)}
    if self._limited:
      # The part of it that max_staleness_steps caused.
      seconds = self._versions.held_up_seconds()
      waits["index/staleness_wait_seconds"] = (seconds, 1.0)
    return waits

  def status(self, step: int, fed: Fed[str]) -> dict[str, float]:
    """Returns the index in use at this step, and how stale it is."""
    if self._versions is None:
      return {}
    return self._versions.staleness(step, fed.plan)

  def swaps(self, step: int, fed: Fed[str]) -> Iterator[Swap]:
    """Yields the swap that took effect at this step, if one did."""
    if self._versions is not None:
      yield from self._versions.swaps(step, fed)

  def check_age(self, step: int, fed: Fed[str]) -> None:
    """Warns if a refresh is overdue."""
    if self._versions is not None:
      self._versions.check_age(step, fed.plan)

  def _prepare(self, examples: Any, version: str) -> Batch:
    index = self._versions.opened(version) if self._versions else None
    return self._stage.prepare(examples, index)


def open_feed(
  run: RunConfig,
  workdir: str,
  first_step: int,
  position: RunPosition | None,
  *,
  warn: Callable[[str], None],
  stopping: Callable[[], bool],
) -> Feed:
  """Opens what a stage reads.

  Args:
    run: the config.
    workdir: of the run; its index versions are used.
    first_step: of the first batch fed.
    position: where a resumed run stands; None for a new one.
    warn: see `Versions`.
    stopping: whether this process was asked to stop.

  Raises:
    ValueError, FileNotFoundError, OSError: the data do not fit the config.
  """
  stage = open_stage(run)
  versions = None
  if stage.probe is not None:
    entries = position.index_versions if position else ()
    versions = Versions(
      run,
      workdir,
      Corpora(stage.corpus, workdir),
      stage.probe,
      first_step,
      entries,
      warn=warn,
      stopping=stopping,
    )
  return Feed(run, stage, versions, first_step, position, stopping)
