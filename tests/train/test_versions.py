# SPDX-License-Identifier: Apache-2.0
"""Assigning versions to steps, with a watcher that is told what is ready."""

import dataclasses
import time

import pytest

from realm_jax.config import RefreshConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.corpora import Corpora, Move, write_move
from realm_jax.index.manifest import Manifest
from realm_jax.index.store import IndexVersion
from realm_jax.index.swap import ReadyIndex, Standing
from realm_jax.train import versions
from realm_jax.train.lookahead import Fed
from realm_jax.train.stop import Stopped

FINGERPRINT = "abcdef01" * 8


def bare(cls, **fields):
  """An object of a class with no more than these attributes."""
  made = object.__new__(cls)
  for name, value in fields.items():
    object.__setattr__(made, name, value)
  return made


def version_of(step, suffix="abcdef01"):
  return bare(
    IndexVersion,
    version=f"{step:08d}-{suffix}",
    step=step,
    manifest=bare(
      Manifest, checkpoint_unix_secs=time.time() - 60.0, num_passages=40
    ),
  )


class ToldWatcher:
  """Stands in for the thread: `newest` is what it has opened."""

  newest = 0
  suffix = "abcdef01"

  def __init__(self, *args, after_step, **kwargs):
    self.after_step = after_step
    self.taken = []
    self.asked = []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def ready(self):
    if self.taken and self.taken[-1] == (self.newest, self.suffix):
      return None
    return self.require(self.newest)

  def standing(self):
    ready = self.ready()
    return Standing("", ready.version.version if ready else "")

  def aim(self, version):
    assert version == ""

  def require(self, step):
    version = version_of(step, self.suffix)
    return ReadyIndex(version=version, probe={}, open_seconds=0.0)

  def wait_since(self, oldest, due, seconds):
    """The builder, just started, has the checkpoint that is due."""
    self.asked.append((oldest, due))
    ToldWatcher.newest = due

  def take(self, ready):
    self.taken.append((ready.version.step, ready.version.version[9:]))


@pytest.fixture
def make_versions(monkeypatch, make_run, tmp_path):
  monkeypatch.setattr(versions, "IndexWatcher", ToldWatcher)
  monkeypatch.setattr(
    versions.store,
    "open_version",
    lambda workdir, name, *rest: version_of(int(name[:8]), name[9:]),
  )
  monkeypatch.setattr(ToldWatcher, "newest", 0)
  monkeypatch.setattr(ToldWatcher, "suffix", "abcdef01")
  corpus = bare(PassageCorpus, fingerprint=FINGERPRINT, directory="corpus")

  def make(policy, first_step=0, entries=(), stopping=False, **refresh):
    fields = {"every_steps": 10, "lag_steps": 4} | refresh
    run = dataclasses.replace(
      make_run("realm", num_steps=100),
      refresh=RefreshConfig(policy=policy, **fields),
    )
    told = []
    made = versions.Versions(
      run,
      "workdir",
      Corpora(corpus, tmp_path),
      lambda new, old: {},
      first_step,
      entries,
      warn=told.append,
      stopping=lambda: stopping,
    )
    made.told = told
    return made

  return make


def name(step):
  return f"{step:08d}-abcdef01"


def fed(plan, wait_seconds=0.0):
  return Fed(batch={}, plan=plan, data_state={}, wait_seconds=wait_seconds)


def test_lockstep_assigns_each_refresh_at_its_lag(make_versions):
  planned = [make_versions("lockstep").plan(step) for step in (0, 13, 14, 24)]
  assert planned == [name(0), name(0), name(10), name(20)]


def test_async_takes_what_is_ready_when_a_batch_is_planned(make_versions):
  opened = make_versions("async")
  assert opened.plan(0) == name(0)
  assert opened.plan(1) == name(0)
  ToldWatcher.newest = 10
  assert [opened.plan(step) for step in (2, 3)] == [name(10)] * 2
  assert list(opened.schedule.entries) == [(0, name(0)), (2, name(10))]


def test_a_resumed_run_replays_its_schedule_and_then_decides_again(
  make_versions,
):
  entries = ((0, name(0)), (12, name(10)))
  opened = make_versions("async", first_step=9, entries=entries)
  ToldWatcher.newest = 20
  planned = [opened.plan(step) for step in (9, 11, 12, 13)]
  assert planned == [name(0), name(0), name(10), name(20)]
  assert opened.opened(name(0)).step == 0


def test_a_swap_is_told_once_with_what_it_cost(make_versions):
  opened = make_versions("async")
  opened.plan(0)
  [first] = opened.swaps(0, fed(name(0), wait_seconds=9.0))
  assert first.stall_seconds == 0.0  # Before training, nothing is held up.
  ToldWatcher.newest = 10
  opened.plan(14)
  assert list(opened.swaps(13, fed(name(0)))) == []
  [swap] = opened.swaps(14, fed(name(10), wait_seconds=0.5))
  assert (swap.first_step, swap.checkpoint_step) == (14, 10)
  assert swap.scalars()["swap/stale_steps"] == 4.0
  assert swap.stall_seconds == 0.5
  assert "index of step 10" in swap.describe()
  assert list(opened.swaps(15, fed(name(10)))) == []


def test_staleness_counts_steps_since_the_checkpoint(make_versions):
  opened = make_versions("async")
  opened.plan(0)
  assert opened.staleness(7, name(0))["index/staleness_steps"] == 7.0


def test_staleness_counts_seconds_since_the_checkpoint(make_versions):
  opened = make_versions("async")
  opened.plan(0)
  seconds = opened.staleness(7, name(0))["index/staleness_seconds"]
  assert 60.0 <= seconds < 600.0
  [swap] = opened.swaps(0, fed(name(0)))
  assert 60.0 <= swap.scalars()["swap/stale_seconds"] < 600.0


def test_no_step_is_searched_with_an_older_index_than_is_allowed(make_versions):
  # Of lookahead 4 and refreshes every 10 steps; the builder sleeps until it
  # is waited for.
  opened = make_versions("async", max_staleness_steps=13)
  planned = [opened.plan(step) for step in range(100)]
  ages = [step - int(plan[:8]) for step, plan in enumerate(planned)]
  assert max(ages) == 13
  assert opened._watcher.asked[:2] == [(1, 10), (11, 20)]
  assert len(opened.told) == len(opened._watcher.asked) == 9
  assert (
    "step 14 may not be searched with the index of step 0" in opened.told[0]
  )


def test_the_time_that_staleness_held_up_is_told_once(make_versions):
  opened = make_versions("async", max_staleness_steps=13)
  opened.plan(0)
  assert opened.held_up_seconds() == 0.0
  opened.plan(14)
  assert opened.held_up_seconds() > 0.0
  assert opened.held_up_seconds() == 0.0


def test_a_run_that_is_to_stop_waits_for_no_index(make_versions):
  entries = ((0, name(0)),)
  opened = make_versions(
    "async", entries=entries, max_staleness_steps=13, stopping=True
  )
  with pytest.raises(Stopped):
    opened.plan(14)
  # It is planned again on resume.
  assert tuple(opened.schedule.entries) == entries


def test_a_run_that_is_to_stop_does_not_wait_for_its_first_index(
  make_versions,
):
  with pytest.raises(Stopped):
    make_versions("never", stopping=True).plan(0)


def test_without_a_limit_nothing_is_waited_for(make_versions):
  opened = make_versions("async")
  assert {opened.plan(step) for step in range(100)} == {name(0)}
  assert opened.told == []


def test_an_overdue_refresh_is_told_with_the_index_s_age(make_versions):
  opened = make_versions("async")
  opened.plan(0)
  for step in range(100):
    opened.check_age(step, name(0))
  assert len(opened.told) == 2  # At 31 and at 61.
  assert "31 steps and 60 seconds old" in opened.told[0]
  assert "due from step 10 on" in opened.told[0]
  assert "realm build-index --workdir=workdir --watch" in opened.told[0]


@pytest.mark.parametrize("policy", ["async", "lockstep"])
def test_listed_steps_take_effect_as_the_policy_says(make_versions, policy):
  opened = make_versions(policy, steps=(10, 50))
  planned = []
  for step in range(100):
    ToldWatcher.newest = {11: 10, 51: 50}.get(step, ToldWatcher.newest)
    planned.append(opened.plan(step))
  late = 1 if policy == "async" else 4
  assert list(opened.schedule.entries) == [
    (0, name(0)),
    (10 + late, name(10)),
    (50 + late, name(50)),
  ]


@pytest.fixture
def move(tmp_path):
  """From a step on, indexes are over the corpus 11111111…."""

  def write(from_step):
    fingerprint = "1" * 64
    write_move(
      tmp_path,
      Move(
        number=1, from_step=from_step, directory="next", fingerprint=fingerprint
      ),
    )

  return write


def moved(step):
  return f"{step:08d}-11111111"


@pytest.mark.parametrize("when", [0, 13])
def test_under_lockstep_a_move_takes_effect_at_its_checkpoint(
  make_versions, move, when
):
  opened = make_versions("lockstep")
  planned = []
  for step in range(30):
    if step == when:
      move(from_step=10)
    planned.append(opened.plan(step))
  assert planned == [name(0)] * 14 + [moved(10)] * 10 + [moved(20)] * 6


def test_under_lockstep_a_resumed_run_plans_ahead_anew(make_versions, move):
  # A host that saw the move late had planned without it.
  move(from_step=10)
  entries = ((0, name(0)), (14, name(10)))
  opened = make_versions("lockstep", first_step=12, entries=entries)
  assert [opened.plan(step) for step in (12, 13, 14)] == [
    name(0),
    name(0),
    moved(10),
  ]


def test_a_move_that_came_too_late_for_lockstep_is_told(make_versions):
  opened = make_versions("lockstep")
  opened.plan(14)
  ToldWatcher.suffix = "11111111"
  with pytest.raises(ValueError, match="too late for 00000010-abcdef01"):
    opened.opened(name(10))


@pytest.mark.parametrize("policy", ["async", "never"])
def test_a_swap_to_another_corpus_says_so(make_versions, move, policy):
  opened = make_versions(policy)
  opened.plan(0)
  list(opened.swaps(0, fed(name(0))))
  move(from_step=0)
  ToldWatcher.suffix = "11111111"
  assert opened.plan(5) == moved(0)
  [swap] = opened.swaps(5, fed(moved(0)))
  assert swap.scalars()["swap/corpus"] == 1.0
  assert swap.scalars()["swap/num_passages"] == 40.0
  assert "over corpus 1, the 40 passages of next" in swap.describe()
  assert list(opened.schedule.entries) == [(0, name(0)), (5, moved(0))]
