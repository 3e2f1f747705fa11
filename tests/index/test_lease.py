# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor
import json
import subprocess
import sys
import time

import pytest

from realm_jax.index import lease
from realm_jax.index.lease import LeaseObserver, Leases


@pytest.fixture
def fast(monkeypatch):
  monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)


@pytest.fixture
def clock(monkeypatch):
  """A monotonic clock that the test sets."""
  now = [100.0]
  monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
  return now


def foreign(folder, holder="other", beat=0):
  """A lease of a process on another machine."""
  folder.mkdir(exist_ok=True)
  content = {"host": "far", "pid": 1, "beat": beat}
  (folder / f"{holder}.json").write_text(json.dumps(content))


def wait_until(condition):
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_a_lease_is_there_while_it_is_held(tmp_path):
  with Leases() as mine:
    path = mine.take(tmp_path / "shard")
    other = LeaseObserver()
    assert other.live(tmp_path / "shard") == [mine.holder]
    assert other.live(tmp_path / "shard", but=mine.holder) == []
    mine.drop(path)
    assert other.live(tmp_path / "shard") == []
    mine.take(tmp_path / "shard")
  assert not (tmp_path / "shard").exists()


def test_a_holder_renews_what_it_holds(tmp_path, fast):
  with Leases() as mine:
    path = mine.take(tmp_path)
    before = path.read_text()
    wait_until(lambda: path.read_text() not in ("", before))


def test_a_lease_that_does_not_change_expires(tmp_path, clock):
  foreign(tmp_path)
  observer = LeaseObserver(expiry_seconds=30.0)
  assert observer.live(tmp_path) == ["other"]
  clock[0] += 29
  assert observer.live(tmp_path) == ["other"]
  foreign(tmp_path, beat=1)
  assert observer.live(tmp_path) == ["other"]
  clock[0] += 29
  assert observer.live(tmp_path) == ["other"]
  clock[0] += 2
  assert observer.live(tmp_path) == []


def test_the_wall_clock_may_jump(tmp_path, monkeypatch, clock):
  foreign(tmp_path)
  observer = LeaseObserver(expiry_seconds=30.0)
  observer.live(tmp_path)
  monkeypatch.setattr(lease.time, "time", lambda: 0.0)
  assert observer.live(tmp_path) == ["other"]


def test_a_process_of_this_machine_that_is_gone_is_seen_at_once(tmp_path):
  source = (
    "import pathlib, sys, os\n"
    "from realm_jax.index.lease import Leases\n"
    "Leases().take(pathlib.Path(sys.argv[1]))\n"
    "os.kill(os.getpid(), 9)\n"
  )
  subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False)
  (left,) = tmp_path.iterdir()
  left.write_text("")  # Killed while it wrote.
  observer = LeaseObserver()
  assert observer.live(tmp_path) == []
  observer.clear_dead(tmp_path)
  assert not tmp_path.exists()


def test_a_half_written_lease_counts_as_alive(tmp_path):
  (tmp_path / "other.json").write_text('{"host": "ot')
  assert LeaseObserver().live(tmp_path) == ["other"]


def test_a_lease_on_what_was_deleted_is_forgotten(tmp_path, fast):
  with Leases() as mine:
    path = mine.take(tmp_path / "gone")
    path.unlink()
    path.parent.rmdir()
    time.sleep(0.1)
    assert not path.parent.exists()


def test_a_renewal_that_fails_is_tried_again(tmp_path, fast, caplog):
  folder = tmp_path / "shard"
  with Leases() as mine:
    path = mine.take(folder)
    folder.rename(tmp_path / "away")
    folder.touch()  # Nothing can be written below a file.
    wait_until(lambda: "could not be renewed" in caplog.text)
    folder.unlink()
    (tmp_path / "away").rename(folder)
    before = path.read_text()
    wait_until(lambda: path.read_text() not in ("", before))


def test_a_folder_may_vanish_while_another_takes_a_lease_there(tmp_path):
  def come_and_go():
    with Leases() as mine:
      for _ in range(1000):
        mine.drop(mine.take(tmp_path / "shard"))

  with ThreadPoolExecutor(3) as threads:
    for end in [threads.submit(come_and_go) for _ in range(3)]:
      end.result()
  assert not (tmp_path / "shard").exists()


def test_a_lease_taken_twice_is_dropped_twice(tmp_path):
  with Leases() as mine:
    path = mine.take(tmp_path)
    assert mine.take(tmp_path) == path
    mine.drop(path)
    assert path.exists()
    mine.drop_soon(path)
    wait_until(lambda: not path.exists())
