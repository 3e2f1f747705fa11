# SPDX-License-Identifier: Apache-2.0
"""Which index version serves which step, on the trainer's side.

Versions are assigned when a batch enters the look-ahead, in the order of
steps, on the thread that dispatches them; so a batch is searched with one
version, and the assignment can be saved and replayed.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import logging
import threading
import time

import jax

from realm_jax import hosts
from realm_jax.config import RunConfig
from realm_jax.index import store
from realm_jax.index.corpora import Corpora, Move
from realm_jax.index.policy import OverdueAlarm
from realm_jax.index.store import IndexVersion
from realm_jax.index.swap import (
  IndexWatcher,
  ReadyIndex,
  Standing,
  VersionSchedule,
  agree,
  lockstep_checkpoint,
)
from realm_jax.train.lookahead import Fed
from realm_jax.train.stop import Stopped

_log = logging.getLogger(__name__)
# (new version, the one before or None) -> metrics of searching with it.
Probe = Callable[[IndexVersion, IndexVersion | None], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swap:
  """A version's first step."""

  first_step: int
  checkpoint_step: int
  corpus: Move  # That led to the corpus.
  num_passages: int  # Of it.
  moved: bool  # The version before was over another corpus.
  stale_seconds: float  # Since the checkpoint was committed.
  stall_seconds: float  # How long its first step waited for its batch.
  stall_steps: float  # The same in units of the steps so far.
  probe: dict[str, float]

  def scalars(self) -> dict[str, float]:
    """Returns the line of metrics.jsonl."""
    corpus = {
      "swap/corpus": float(self.corpus.number),
      "swap/num_passages": float(self.num_passages),
    }
    return {
      "swap/first_step": float(self.first_step),
      "swap/checkpoint_step": float(self.checkpoint_step),
      **(corpus if self.corpus.number else {}),
      "swap/stale_steps": float(self.first_step - self.checkpoint_step),
      "swap/stale_seconds": self.stale_seconds,
      "swap/stall_seconds": self.stall_seconds,
      "swap/stall_steps": self.stall_steps,
      **self.probe,
    }

  def describe(self) -> str:
    """Returns the line that a person sees."""
    recall = self.probe.get("probe/recall_at_5")
    found = "" if recall is None else f", recall@5 {recall:.3f}"
    over = (
      f" over corpus {self.corpus.number}, the {self.num_passages:,} passages "
      f"of {self.corpus.directory}"
    )
    return (
      f"step {self.first_step}: swapped in the index of step "
      f"{self.checkpoint_step}{over if self.moved else ''} "
      f"(held up {self.stall_seconds:.2f} s{found})"
    )


class Versions:
  """Plans, opens and times the versions of one run."""

  def __init__(
    self,
    run: RunConfig,
    workdir: str,
    corpora: Corpora,
    probe: Probe,
    first_step: int,
    entries: Sequence[tuple[int, str]],
    *,
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
  ) -> None:
    """Opens nothing yet.

    Args:
      run: the config.
      workdir: of the run.
      corpora: that the versions must be over.
      probe: measures a version before it is used.
      first_step: that will be planned.
      entries: the schedule of a resumed run.
      warn: tells a person that the index is late.
      stopping: whether this host was asked to stop.
    """
    self._run, self._workdir, self._corpora = run, workdir, corpora
    self._lockstep = run.refresh.policy == "lockstep"
    if self._lockstep:
      # What was planned ahead is planned again: it is the same.
      entries = [entry for entry in entries if entry[0] < first_step]
    self.schedule = VersionSchedule(tuple(entries))
    self._lock = threading.Lock()
    self._open: dict[str, ReadyIndex] = {}
    self._in_use = self.schedule.at(first_step) if entries else ""
    self._seconds_per_step = _Pace()
    self._alarm = OverdueAlarm(run.refresh)
    self._warn, self._stopping = warn, stopping
    self._held_up_seconds = 0.0
    replayed = self.schedule.needed_from(first_step)
    after = _first_wanted(replayed, self._lockstep)
    self._watcher = IndexWatcher(
      workdir,
      run,
      corpora,
      after_step=after,
      after=replayed[-1] if replayed else "",
      aimed=jax.process_count() > 1,
      probe=probe,
    )
    if not self._lockstep:  # There the watcher opens them, in order.
      for name in replayed:
        self._reopen(name)

  def start(self) -> None:
    """Begins to watch for versions."""
    self._watcher.__enter__()

  def close(self) -> None:
    """Ends the watching thread."""
    self._watcher.__exit__()

  def plan(self, step: int) -> str:
    """Returns the version that serves `step`; ask in the order of steps.

    Raises:
      Stopped: a host was asked to stop while all waited for a version.
      Exception: see `IndexWatcher.wait_since`.
    """
    entries = self.schedule.entries
    if not entries or step > entries[-1][0]:
      name = self._decide(step)
      if not entries or name != entries[-1][1]:
        self.schedule = self.schedule.add(step, name)
    return self.schedule.at(step)

  def _decide(self, step: int) -> str:
    refresh = self._run.refresh
    if self._lockstep:
      wanted = lockstep_checkpoint(step, refresh)
      last = [name for _, name in self.schedule.entries[-1:]]
      if [store.step_of(name) for name in last] == [wanted]:
        return last[0]
      return self._corpora.version_name(wanted)
    if not self.schedule.entries:
      _log.info("Waiting for the index of checkpoint 0")
      return self._wait(oldest=0, due=0)
    current = self.schedule.entries[-1][1]
    _, agreed = self._agreed()
    name = agreed or current
    return name if self._fresh(step, name) else self._refreshed(step, name)

  def _agreed(self) -> tuple[bool, str]:
    """Takes the version that every host has open, if there is such a one.

    Returns:
      Whether a host was asked to stop; and the version, "" for none. All hosts
      must call this at the same points, and get the same.
    """
    mine = self._watcher.standing()
    everyone = hosts.gather([self._stopping(), *mine])
    agreed = agree(
      [Standing(*standing) for _, *standing in everyone], self._corpora.rank
    )
    self._watcher.aim(agreed.wanted)
    name = ""
    if agreed.ready:
      ready = self._watcher.ready()
      assert ready is not None  # What is open stays, or gives way to a newer.
      name = self._keep(ready)
    return any(stopping for stopping, *_ in everyone), name

  def _fresh(self, step: int, name: str) -> bool:
    limit = self._run.refresh.max_staleness_steps
    return not limit or step - store.step_of(name) <= limit

  def _refreshed(self, step: int, name: str) -> str:
    """Waits for a version fresh enough for `step`.

    The checkpoint that it needs is there: a batch is planned `lookahead` steps
    ahead, and the config sees to it that a refresh step lies before that.
    """
    refresh = self._run.refresh
    oldest = step - refresh.max_staleness_steps
    due = refresh.last_refresh(step - self._run.retrieval.lookahead)
    self._warn(
      f"step {step} may not be searched with the index of step "
      f"{store.step_of(name)} (refresh.max_staleness_steps="
      f"{refresh.max_staleness_steps}): waiting for the index builder"
    )
    started = time.monotonic()
    newer = self._wait(oldest, due)
    self._held_up_seconds += time.monotonic() - started
    return newer

  def _wait(self, oldest: int, due: int) -> str:
    """Returns a version of checkpoint `oldest` or newer, when all have it."""
    started = time.monotonic()
    while True:
      # What all were told ends the wait, so that all end it together.
      stopping, name = self._agreed()
      if stopping:
        raise Stopped
      if name and store.step_of(name) >= oldest:
        return name
      self._watcher.wait_since(oldest, due, time.monotonic() - started)

  def opened(self, name: str) -> IndexVersion:
    """Returns an open version; under lockstep, waits for the builder.

    Called on a look-ahead thread, so the trainer waits only when it has no
    batch left.
    """
    with self._lock:
      if name not in self._open:
        came = self._keep(self._watcher.require(store.step_of(name)))
        if came != name:
          raise ValueError(
            f"The run moved to another corpus too late for {name}, which was "
            f"planned, and {came} was built. The same command goes on with it."
          )
      return self._open[name].version

  def _keep(self, ready: ReadyIndex) -> str:
    self._watcher.take(ready)
    self._open[ready.version.version] = ready
    return ready.version.version

  def _reopen(self, name: str) -> None:
    corpus = self._corpora.of_version(name)
    version = store.open_version(self._workdir, name, self._run, corpus)
    self._keep(ReadyIndex(version=version, probe={}, open_seconds=0.0))

  def staleness(self, step: int, name: str) -> dict[str, float]:
    """Returns how old the version that served `step` is."""
    version = self._open[name].version
    return {
      "index/step": float(version.step),
      "index/staleness_steps": float(step - version.step),
      "index/staleness_seconds": _seconds_old(version),
    }

  def held_up_seconds(self) -> float:
    """Returns how long max_staleness_steps held up, since the last call."""
    seconds, self._held_up_seconds = self._held_up_seconds, 0.0
    return seconds

  def check_age(self, step: int, name: str) -> None:
    """Warns if the index that served `step` should have been replaced."""
    version = self._open[name].version
    if self._alarm.rings(step, version.step):
      self._warn(
        f"step {step}: the index is of step {version.step}, "
        f"{step - version.step} steps and {_seconds_old(version):.0f} seconds "
        f"old; the next was due from step "
        f"{self._run.refresh.next_refresh(version.step)} on. Is the builder "
        f"running? `realm build-index --workdir={self._workdir} --watch`"
      )

  def swaps(self, step: int, fed: Fed[str]) -> Iterator[Swap]:
    """Yields the swap that took effect at `step`, if one did."""
    seconds_per_step = self._seconds_per_step.tick()
    if fed.plan == self._in_use:
      return
    before = self._in_use
    needed = self.schedule.needed_from(step)
    for name in set(self._open) - set(needed):
      del self._open[name]
    self._in_use = fed.plan
    ready = self._open[fed.plan]
    # The first version is waited for before training, not swapped in.
    stall = fed.wait_seconds if before else 0.0
    move = self._corpora.move_of(fed.plan)
    yield Swap(
      first_step=step,
      checkpoint_step=ready.version.step,
      corpus=move,
      num_passages=ready.version.manifest.num_passages,
      moved=bool(before) and move != self._corpora.move_of(before),
      stale_seconds=_seconds_old(ready.version),
      stall_seconds=stall,
      stall_steps=stall / seconds_per_step if seconds_per_step else 0.0,
      probe=ready.probe,
    )


class _Pace:
  """Mean seconds between two calls, the first one left out."""

  def __init__(self) -> None:
    self._started: float | None = None
    self._ticks = 0

  def tick(self) -> float:
    now = time.monotonic()
    if self._started is None:
      self._started = now
      return 0.0
    self._ticks += 1
    return (now - self._started) / self._ticks


def _seconds_old(version: IndexVersion) -> float:
  return time.time() - version.manifest.checkpoint_unix_secs


def _first_wanted(replayed: Sequence[str], lockstep: bool) -> int:
  """Returns the checkpoint step after which versions are of interest."""
  if not replayed:
    return -1
  if lockstep:
    return store.step_of(replayed[0]) - 1
  return store.step_of(replayed[-1])
