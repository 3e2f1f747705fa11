# SPDX-License-Identifier: Apache-2.0
"""The host loop: the same for every stage."""

from collections.abc import Mapping
import contextlib
import time
from typing import Any

import jax

from realm_jax import allocator, hosts, sharding
from realm_jax import workdir as workdirs
from realm_jax.checkpoints import CheckpointWriter
from realm_jax.config import RunConfig
from realm_jax.train.feed import Feed, open_feed
from realm_jax.train.lookahead import Fed
from realm_jax.train.metrics import Means, MetricLog
from realm_jax.train.optimizer import learning_rate
from realm_jax.train.program import Program
from realm_jax.train.progress import Progress
from realm_jax.train.step import TrainState
from realm_jax.train.stop import Stopped, StopRequest


def train(run: RunConfig, workdir: str) -> bool:
  """Trains to the last step, from the newest checkpoint of `workdir` if any.

  Returns:
    Whether the last step was reached; False after a request to stop, with
    the state after the last step taken saved.

  Raises:
    ValueError, FileNotFoundError, OSError: before the first step where the
      input does not fit; later where a file cannot be written or the index
      builder does not deliver.
  """
  stop = StopRequest()
  stop.install()
  program = Program(run, sharding.make_mesh(run.mesh))
  with contextlib.ExitStack() as stack:
    writer = stack.enter_context(
      CheckpointWriter(workdir, run.keep_checkpoints)
    )
    restored = writer.restore_newest(program.abstract_state)
    state, position = restored or (program.first_state(), None)
    first_step = int(state.step)
    if first_step < run.num_steps and hosts.is_lead():
      workdirs.unmark_done(workdir)
    bar = Progress(run.stage, first_step, run.num_steps)
    feed = stack.enter_context(
      open_feed(
        run,
        workdir,
        first_step,
        position,
        warn=bar.warn,
        stopping=stop.asked,
      )
    )
    if position is None:
      writer.save(0, state, feed.position())
    else:
      bar.note(f"Goes on from step {first_step} of {run.num_steps}.")
    program.compile(feed.shapes())
    writer.wait()  # The first index waits for it: if it failed, say so now.
    allocator.release_freed_memory()
    log = None
    if hosts.is_lead():
      log = stack.enter_context(MetricLog(workdir, first_step))
    stack.enter_context(bar)
    steps = _Steps(run, program, feed, writer, log, bar)
    state = steps.run(state, first_step)
    writer.wait()
    finished = int(state.step) >= run.num_steps
    if finished and hosts.is_lead():
      workdirs.mark_done(workdir, run.num_steps)
    return finished


class _Steps:
  """The loop proper, with what it reports to."""

  def __init__(
    self,
    run: RunConfig,
    program: Program,
    feed: Feed,
    writer: CheckpointWriter,
    log: MetricLog | None,
    bar: Progress,
  ) -> None:
    self._run, self._program, self._feed = run, program, feed
    self._writer, self._log, self._bar = writer, log, bar
    self._means = Means()
    self._in_flight: dict[str, Any] = {}
    self._logged_at = time.perf_counter()
    self._logged_step = self._saved_step = 0
    self._schedule = learning_rate(run.optimizer, run.num_steps)

  def run(self, state: TrainState, first_step: int) -> TrainState:
    """Takes the steps from `first_step` on, to the last or to a stop."""
    self._saved_step = self._logged_step = first_step
    self._logged_at = time.perf_counter()
    fed = None
    for step in range(first_step, self._run.num_steps):
      try:
        fed = self._feed.next()
      except Stopped:
        self._finish(step, state, fed)
        break
      state, sums = self._program.update(state, fed.batch)
      # One step late: the device works on this step while the host waits for
      # the one before, and is never more than one step ahead.
      self._means.add(jax.device_get(self._in_flight))
      self._in_flight = sums | self._feed.wait(fed)
      if _must_wait():
        with hosts.waiting():
          jax.block_until_ready(sums)
      done = step + 1
      self._bar.advance(done)
      for swap in self._feed.swaps(step, fed):
        self._write(done, swap.scalars())
        self._bar.note(swap.describe())
      self._feed.check_age(step, fed)
      if self._saves_at(done):
        self._save(done, state)
      if done == self._run.num_steps or done % self._run.log_every_steps == 0:
        self._report(done, fed)
    return state

  def _finish(self, done: int, state: TrainState, fed: Fed[str] | None) -> None:
    """Saves and logs what a stop before the next step leaves."""
    if done > self._saved_step:
      self._save(done, state)
    if fed is not None and done > self._logged_step:
      self._report(done, fed)

  def _save(self, done: int, state: TrainState) -> None:
    self._writer.save(done, state, self._feed.position())
    self._saved_step = done

  def _saves_at(self, done: int) -> bool:
    run = self._run
    return (
      done == run.num_steps
      or done % run.checkpoint_every_steps == 0
      # Where nothing is searched, no builder waits for one.
      or (self._feed.searches and run.refresh.is_refresh(done))
    )

  def _report(self, done: int, fed: Fed[str]) -> None:
    self._means.add(jax.device_get(self._in_flight))
    self._in_flight = {}
    now = time.perf_counter()
    steps, seconds = done - self._logged_step, now - self._logged_at
    scalars = (
      self._means.pop()
      | self._feed.status(done - 1, fed)
      | {
        "learning_rate": float(self._schedule(done - 1)),
        "steps_per_second": steps / seconds,
        "step_seconds": seconds / steps,
      }
    )
    self._write(done, scalars)
    self._bar.show(done, scalars)
    self._logged_at, self._logged_step = now, done

  def _write(self, done: int, scalars: Mapping[str, float]) -> None:
    if self._log is not None:
      self._log.write(done, scalars)


def _must_wait() -> bool:
  # Gloo on the CPU deadlocks when several steps are in flight in processes
  # with several devices each.
  return jax.process_count() > 1 and jax.default_backend() == "cpu"
