# SPDX-License-Identifier: Apache-2.0
import dataclasses
import threading
import time

import numpy as np
import pytest

from realm_jax.config import RefreshConfig
from realm_jax.index import drafts, store
from realm_jax.index import publish as publishing
from realm_jax.index.corpora import Corpora, write_move
from realm_jax.index.swap import (
  IndexWatcher,
  Standing,
  VersionSchedule,
  agree,
  lockstep_checkpoint,
)
from realm_jax.index.verify import VersionRefused
from tests.index.conftest import draft, publish, save_checkpoints, to


def test_a_version_serves_from_its_first_step_until_the_next():
  schedule = VersionSchedule().add(0, "a").add(7, "b")
  assert [schedule.at(step) for step in (0, 6, 7, 100)] == ["a", "a", "b", "b"]


def test_a_schedule_only_goes_forward():
  with pytest.raises(ValueError, match=r"ascend, got \[5, 5\]"):
    VersionSchedule().add(5, "a").add(5, "b")


def test_a_step_before_the_schedule_is_an_error():
  with pytest.raises(LookupError, match="step 4"):
    VersionSchedule(((5, "a"),)).at(4)


def test_a_resume_needs_the_version_in_use_and_all_later_ones():
  schedule = VersionSchedule(((0, "a"), (7, "b"), (20, "c")))
  assert schedule.needed_from(0) == ("a", "b", "c")
  assert schedule.needed_from(19) == ("b", "c")
  assert schedule.needed_from(20) == ("c",)
  assert VersionSchedule().needed_from(3) == ()


def test_under_lockstep_a_checkpoint_serves_exactly_from_its_lag_on():
  refresh = RefreshConfig(policy="lockstep", every_steps=10, lag_steps=4)
  serving = [lockstep_checkpoint(step, refresh) for step in range(30)]
  assert serving == [0] * 14 + [10] * 10 + [20] * 6


def test_under_lockstep_listed_checkpoints_serve_from_their_lag_on():
  refresh = RefreshConfig(policy="lockstep", steps=(5, 20), lag_steps=4)
  serving = [lockstep_checkpoint(step, refresh) for step in range(30)]
  assert serving == [0] * 9 + [5] * 15 + [20] * 6


def name(step):
  return f"{step:08d}-abcdef01"


def test_one_host_agrees_with_itself():
  assert agree([Standing("", "")], store.step_of) == ("", "")
  assert agree([Standing(name(30), "")], store.step_of) == (name(30), "")
  assert agree([Standing(name(30), name(30))], store.step_of) == (
    name(30),
    name(30),
  )


@pytest.mark.parametrize(
  ("ready", "agreed"), [((30, 30), 30), ((30, 20), None), ((30, None), None)]
)
def test_hosts_swap_in_only_what_all_have_ready(ready, agreed):
  standings = [Standing("", name(step) if step else "") for step in ready]
  assert agree(standings, store.step_of).ready == (
    name(agreed) if agreed else ""
  )


def test_hosts_open_the_oldest_of_what_they_see_as_the_newest():
  seen = [Standing(name(step), "") for step in (30, 20, 40)]
  assert agree(seen, store.step_of).wanted == name(20)
  assert agree([*seen, Standing("", "")], store.step_of).wanted == ""
  # By number, not by letter.
  assert agree([Standing("100000000-abcdef01", ""), seen[0]], store.step_of)[
    0
  ] == name(30)


class _Host:
  """Does as `IndexWatcher` does where hosts agree, in a time of its own."""

  def __init__(self, rng):
    self._rng = rng
    self.in_use = self.aim = self.ready = self.seen = 0
    self._opens_until = 0

  def standing(self, now, newest):
    if self._rng.random() < 0.3:  # It looks now and then.
      self.seen = newest
    wanted = self.aim if self.aim > self.in_use else self.seen
    if self.aim > self.in_use and self.ready != self.aim:
      if not self._opens_until:
        self._opens_until = now + self._rng.integers(1, 20)
      elif now >= self._opens_until:
        self.ready, self._opens_until = self.aim, 0
    return Standing(
      name(wanted) if wanted > self.in_use else "",
      name(self.ready) if self.ready else "",
    )


def test_hosts_that_differ_in_speed_swap_often_however_much_is_published():
  rng = np.random.default_rng(0)
  fleet = [_Host(rng) for _ in range(4)]
  newest, swaps = 0, []
  for now in range(2000):
    newest += rng.random() < 0.5  # Far faster than a host opens one.
    agreed = agree(
      [host.standing(now, newest) for host in fleet], store.step_of
    )
    for host in fleet:
      host.aim = int(agreed.wanted[:8] or 0)
      if agreed.ready:
        host.in_use, host.ready = int(agreed.ready[:8]), 0
    if agreed.ready:
      swaps.append((now, int(agreed.ready[:8]), newest))
  at, steps, published = np.array(swaps).T
  # To look takes 3 moments, to open 20 at most.
  assert np.diff(at).max() < 60
  assert (np.diff(steps) > 0).all()
  assert (published - steps).max() < 60


def _watch(tmp_path, run, corpus, **options):
  corpora = Corpora(corpus, tmp_path)
  return IndexWatcher(tmp_path, run, corpora, poll_seconds=0.01, **options)


def _wait_ready(watcher, step):
  deadline = time.monotonic() + 200
  while time.monotonic() < deadline:
    ready = watcher.ready()
    if ready is not None and ready.version.step == step:
      return ready
    time.sleep(0.01)
  raise AssertionError(f"step {step} did not become ready")


def test_the_newest_version_becomes_ready_and_older_ones_are_skipped(
  tmp_path, run, corpus
):
  publish(tmp_path, 10, corpus)
  newest = publish(tmp_path, 20, corpus)
  with _watch(tmp_path, run, corpus) as watcher:
    ready = _wait_ready(watcher, 20)
    assert ready.version.version == newest
    watcher.take(ready)
    assert watcher.ready() is None
    publish(tmp_path, 37, corpus)
    assert _wait_ready(watcher, 37).open_seconds > 0


def test_a_frozen_index_stays(tmp_path, run, corpus):
  refresh = dataclasses.replace(run.refresh, policy="never")
  run = dataclasses.replace(run, refresh=refresh)
  for step in (0, 10):
    publish(tmp_path, step, corpus)
  with _watch(tmp_path, run, corpus) as watcher:
    watcher.take(_wait_ready(watcher, 0))
    time.sleep(0.1)
    assert watcher.ready() is None


def test_a_version_that_was_not_taken_gives_way_to_a_newer(
  tmp_path, run, corpus
):
  with _watch(tmp_path, run, corpus) as watcher:
    for step in (10, 20):
      publish(tmp_path, step, corpus)
      _wait_ready(watcher, step)


def test_versions_up_to_a_step_and_of_other_corpora_are_passed_over(
  tmp_path, run, corpus, other_corpus
):
  name = publish(tmp_path, 10, corpus)
  publish(tmp_path, 20, other_corpus)
  with _watch(tmp_path, run, corpus, after_step=10, after=name) as watcher:
    publish(tmp_path, 30, corpus)
    _wait_ready(watcher, 30)


def test_the_probe_sees_the_new_version_and_the_one_in_use(
  tmp_path, run, corpus
):
  main_thread = threading.get_ident()

  def probe(new, current):
    assert threading.get_ident() != main_thread
    return {
      "new": float(new.step),
      "current": -1.0 if current is None else float(current.step),
    }

  publish(tmp_path, 10, corpus)
  with _watch(tmp_path, run, corpus, probe=probe) as watcher:
    first = _wait_ready(watcher, 10)
    assert first.probe == {"new": 10, "current": -1}
    watcher.take(first)
    publish(tmp_path, 20, corpus)
    assert _wait_ready(watcher, 20).probe == {"new": 20, "current": 10}


def test_what_the_thread_raises_is_raised_to_the_trainer(tmp_path, run, corpus):
  def probe(new, current):
    raise ZeroDivisionError("in the probe")

  publish(tmp_path, 10, corpus)
  with (
    _watch(tmp_path, run, corpus, probe=probe) as watcher,
    pytest.raises(ZeroDivisionError, match="in the probe") as raised,
  ):
    _wait_ready(watcher, 10)
  assert "being opened" in raised.value.__notes__[0]


def test_a_damaged_version_stops_the_trainer(tmp_path, lockstep, corpus):
  version = publish(tmp_path, 10, corpus)
  (tmp_path / "index" / version / "retriever.safetensors").unlink()
  with (
    _watch(tmp_path, lockstep, corpus) as watcher,
    pytest.raises(ValueError, match="damaged"),
  ):
    watcher.require(10)


def test_a_version_pruned_while_it_is_opened_is_no_error(
  tmp_path, run, corpus, monkeypatch
):
  real = store.open_version

  def pruned_under_our_hands(workdir, version, *args):
    if store.step_of(version) == 10:
      drafts.discard(store.index_folder(workdir) / version)
      publish(tmp_path, 20, corpus)
    return real(workdir, version, *args)

  monkeypatch.setattr(store, "open_version", pruned_under_our_hands)
  publish(tmp_path, 10, corpus)
  with _watch(tmp_path, run, corpus) as watcher:
    _wait_ready(watcher, 20)


def test_lockstep_serves_every_refresh_checkpoint_in_order(
  tmp_path, lockstep, corpus
):
  for step in (0, 10, 13, 20, 30):
    publish(tmp_path, step, corpus)
  with _watch(tmp_path, lockstep, corpus) as watcher:
    for step in (0, 10, 20, 30):
      ready = watcher.require(step)
      assert ready.version.step == step
      watcher.take(ready)


def test_lockstep_waits_for_the_builder(tmp_path, lockstep, corpus):
  late = threading.Timer(0.3, publish, (tmp_path, 10, corpus))
  with _watch(tmp_path, lockstep, corpus) as watcher:
    late.start()
    assert watcher.require(10).version.step == 10


def test_waiting_too_long_says_how_to_start_the_builder(
  tmp_path, lockstep, corpus, other_corpus
):
  other = publish(tmp_path, 10, other_corpus)
  refresh = dataclasses.replace(lockstep.refresh, wait_seconds=0.1)
  run = dataclasses.replace(lockstep, refresh=refresh)
  with (
    _watch(tmp_path, run, corpus) as watcher,
    pytest.raises(
      TimeoutError, match=f"build-index --workdir={tmp_path} --watch.*{other}"
    ),
  ):
    watcher.require(10)


def test_a_refused_version_is_not_waited_for(tmp_path, lockstep, corpus):
  directory, _ = draft(tmp_path, 10, corpus)
  publishing.refuse(directory, "recall is too low", {})
  with (
    _watch(tmp_path, lockstep, corpus) as watcher,
    pytest.raises(VersionRefused, match="recall is too low"),
  ):
    watcher.require(10)


def _wait_since(watcher, oldest, due):
  started = time.monotonic()
  while (ready := watcher.ready()) is None or ready.version.step < oldest:
    watcher.wait_since(oldest, due, time.monotonic() - started)
  return ready


def test_a_version_as_new_as_asked_for_is_waited_for(tmp_path, run, corpus):
  publish(tmp_path, 0, corpus)
  late = threading.Timer(0.3, publish, (tmp_path, 13, corpus))
  with _watch(tmp_path, run, corpus) as watcher:
    late.start()
    assert _wait_since(watcher, 11, 10).version.step == 13


def test_a_wait_lasts_no_longer_than_a_look_at_the_directory(
  tmp_path, run, corpus
):
  with _watch(tmp_path, run, corpus) as watcher:
    assert watcher.wait_since(11, 10, 0.0) is None  # So a stop ends it soon.


def test_waiting_too_long_for_a_newer_version_names_both_ways_out(
  tmp_path, run, corpus
):
  refresh = dataclasses.replace(
    run.refresh, wait_seconds=0.1, max_staleness_steps=30
  )
  run = dataclasses.replace(run, refresh=refresh)
  with (
    _watch(tmp_path, run, corpus) as watcher,
    pytest.raises(
      TimeoutError,
      match=r"=30 .* checkpoint 11 .*build-index .*may_differ=refresh.max",
    ),
  ):
    _wait_since(watcher, 11, 10)


def test_where_the_builder_refused_the_last_checkpoint_nothing_is_waited_for(
  tmp_path, run, corpus
):
  publish(tmp_path, 0, corpus)
  save_checkpoints(tmp_path, run, [0, 10])
  directory, _ = draft(tmp_path, 10, corpus)
  publishing.refuse(directory, "recall is too low", {})
  with (
    _watch(tmp_path, run, corpus) as watcher,
    pytest.raises(VersionRefused, match="recall is too low"),
  ):
    _wait_since(watcher, 5, 10)


def test_a_refused_checkpoint_is_no_matter_while_another_can_be_indexed(
  tmp_path, run, corpus
):
  save_checkpoints(tmp_path, run, [10, 20])
  directory, _ = draft(tmp_path, 10, corpus)
  publishing.refuse(directory, "recall is too low", {})
  threading.Timer(0.3, publish, (tmp_path, 20, corpus)).start()
  with _watch(tmp_path, run, corpus) as watcher:
    assert _wait_since(watcher, 5, 10).version.step == 20


def test_lockstep_passes_over_what_is_not_listed(tmp_path, lockstep, corpus):
  refresh = dataclasses.replace(lockstep.refresh, steps=(20,))
  run = dataclasses.replace(lockstep, refresh=refresh)
  for step in (0, 10, 20):
    publish(tmp_path, step, corpus)
  with _watch(tmp_path, run, corpus) as watcher:
    watcher.take(watcher.require(0))
    assert watcher.require(20).version.step == 20


def test_a_version_that_can_no_longer_come_is_not_waited_for(
  tmp_path, lockstep, corpus
):
  publish(tmp_path, 20, corpus)
  with (
    _watch(tmp_path, lockstep, corpus) as watcher,
    pytest.raises(ValueError, match="checkpoint 10 is wanted"),
  ):
    watcher.require(10)


def _wait_for_corpus(watcher, corpus):
  deadline = time.monotonic() + 200
  while time.monotonic() < deadline:
    ready = watcher.ready()
    if ready and ready.version.corpus.fingerprint == corpus.fingerprint:
      return ready
    time.sleep(0.01)
  raise AssertionError("the corpus was not moved to")


@pytest.mark.parametrize("policy", ["async", "never"])
def test_a_move_makes_the_same_step_ready_again(
  tmp_path, run, corpus, edited_corpus, policy
):
  refresh = dataclasses.replace(run.refresh, policy=policy)
  run = dataclasses.replace(run, refresh=refresh)
  publish(tmp_path, 0, corpus)
  with _watch(tmp_path, run, corpus) as watcher:
    old = _wait_ready(watcher, 0)
    write_move(tmp_path, to(edited_corpus, from_step=0))
    publish(tmp_path, 0, edited_corpus)
    # It came between asking for the old one and taking that.
    new = _wait_for_corpus(watcher, edited_corpus)
    watcher.take(old)
    assert watcher.ready() is new
    watcher.take(new)
    # What a slow builder had begun over the old corpus is passed over.
    publish(tmp_path, 10, corpus)
    time.sleep(0.1)
    assert watcher.ready() is None


def test_who_resumes_with_the_old_corpus_is_given_the_next(
  tmp_path, run, corpus, edited_corpus
):
  old = publish(tmp_path, 10, corpus)
  write_move(tmp_path, to(edited_corpus, from_step=10))
  with _watch(tmp_path, run, corpus, after_step=10, after=old) as watcher:
    publish(tmp_path, 10, edited_corpus)
    _wait_for_corpus(watcher, edited_corpus)


def test_lockstep_moves_at_one_checkpoint(
  tmp_path, lockstep, corpus, edited_corpus
):
  write_move(tmp_path, to(edited_corpus, from_step=20))
  for step in (0, 10, 20):
    publish(tmp_path, step, corpus)
  for step in (0, 10, 20, 30):
    publish(tmp_path, step, edited_corpus)
  with _watch(tmp_path, lockstep, corpus) as watcher:
    for step in (0, 10, 20, 30):
      ready = watcher.require(step)
      wanted = corpus if step < 20 else edited_corpus
      assert ready.version.corpus.fingerprint == wanted.fingerprint
      watcher.take(ready)


def test_what_hosts_agreed_on_is_opened_and_kept_until_it_is_in_use(
  tmp_path, run, corpus
):
  versions = [publish(tmp_path, step, corpus) for step in (10, 20)]
  with _watch(tmp_path, run, corpus, aimed=True) as watcher:
    _wait_for(lambda: watcher.standing() == (versions[1], ""))
    watcher.aim(versions[0])
    assert watcher.standing().wanted == versions[0]
    ready = _wait_ready(watcher, 10)
    newest = publish(tmp_path, 30, corpus)
    time.sleep(0.1)
    assert watcher.standing() == (versions[0], versions[0])
    watcher.take(ready)
    _wait_for(lambda: watcher.standing() == (newest, ""))


def test_what_hosts_agreed_on_gives_way_once_it_is_gone(tmp_path, run, corpus):
  newest = publish(tmp_path, 20, corpus)
  with _watch(tmp_path, run, corpus, aimed=True) as watcher:
    watcher.aim(name(10))
    _wait_for(lambda: watcher.standing() == (newest, ""))


def _wait_for(condition):
  deadline = time.monotonic() + 200
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)
