# SPDX-License-Identifier: Apache-2.0
"""Several trainer processes, with devices of their own, over gloo."""

import collections
import contextlib
import os
import re
import signal
import socket
import time

import psutil
import pytest

from realm_jax import checkpoints
from realm_jax.train.metrics import METRICS_FILE
from tests.integration.jobs import (
  CONFIG,
  PATIENCE_SECONDS,
  same_params,
  schedule,
  write_data,
)
from tests.integration.processes import (
  assert_same_run,
  finish,
  losses,
  records,
  start,
  swaps,
  wait_for,
)

LAST_STEP = 14
FLAGS = (
  "--config.batch_size=8",
  f"--config.num_steps={LAST_STEP}",
  "--config.checkpoint_every_steps=4",
  "--config.retrieval.num_candidates=2",
  "--config.refresh.every_steps=4",
  "--config.refresh.lag_steps=2",
  # Rows lie elsewhere on their lines where fewer share one shape, and dropout
  # goes by place.
  "--config.encoder.dropout=0.0",
  "--config.encoder.attention_dropout=0.0",
  "--config.embedder.bert.dropout=0.0",
  "--config.embedder.bert.attention_dropout=0.0",
)
# Exact search as well, so that a batch gets the same passages.
ON_DEVICES = "--config.retrieval.backend=device"


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  root = tmp_path_factory.mktemp("hosts")
  write_data(root, tiny_tokenizer, tiny_corpus)
  return root


@pytest.fixture
def started():
  """Processes that a test leaves behind are killed."""
  processes = []
  yield processes
  for process in processes:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_flags(data, workdir):
  return [f"--config={CONFIG}:realm,{data}", f"--workdir={workdir}", *FLAGS]


def launch(data, workdir, trainers, *flags, **environment):
  return start(
    workdir.with_suffix(".log"),
    ["launch.local"],
    f"--trainers={trainers}",
    *run_flags(data, workdir),
    *flags,
    **environment,
  )


def join(data, workdir, modules, *flags):
  """Starts a group of trainers without a builder, each with a log."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
  return [
    start(
      workdir.with_name(f"{workdir.name}-{number}.log"),
      module,
      "train",
      *run_flags(data, workdir),
      f"--coordinator=127.0.0.1:{port}",
      f"--num_processes={len(modules)}",
      f"--process_id={number}",
      *flags,
    )
    for number, module in enumerate(modules)
  ]


def swaps_told(log):
  """The same, as another process printed it."""
  told = re.findall(
    r"step (\d+): swapped in the index of step\s(\d+)", log.read_text()
  )
  return [(int(first), int(checkpoint)) for first, checkpoint in told]


def members(folder, present, seconds, late):
  """Starts tasks of a SLURM step of two, on this machine, each with a log."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
  return [
    start(
      folder / f"{number}.log",
      ["tests.integration.member"],
      str(seconds),
      str(late),
      SLURM_JOB_ID="1",
      SLURM_STEP_NODELIST="127.0.0.1",
      SLURM_NTASKS="2",
      SLURM_PROCID=str(number),
      SLURM_LOCALID="0",
      JAX_COORDINATOR_PORT=str(port),
      REALM_HOSTS="ant,bee",
    )
    for number in present
  ]


@pytest.mark.parametrize("present", [0, 1])
def test_who_does_not_join_is_named(tmp_path, started, present):
  started += members(tmp_path, [present], seconds=1, late=0)
  [process] = started
  assert process.wait(PATIENCE_SECONDS) == 1
  missing = ["Process 1 (bee) of 2 did not come", "Process 0 (ant) did not"]
  assert missing[present] in (tmp_path / f"{present}.log").read_text()


def test_who_comes_too_late_is_named_and_logs_are_labelled(tmp_path, started):
  started += members(tmp_path, [0, 1], seconds=8, late=1)
  assert started[0].wait(PATIENCE_SECONDS) == 1
  host = socket.gethostname()
  log = (tmp_path / "0.log").read_text()
  assert re.search(
    rf"(?m)^\[0\] I.* processes: 0 \({host}\), 1 \({host}\)$", log
  )
  assert f"[0] realm: Processes 1 ({host}) of 2 did not come to where" in log
  assert "[1] met [0, 1]\n" in (tmp_path / "1.log").read_text()


@pytest.fixture(scope="module")
def alone(data):
  workdir = data / "alone"
  finish(launch(data, workdir, 1), workdir)
  return workdir


@pytest.fixture(scope="module")
def two(data):
  workdir = data / "two"
  finish(launch(data, workdir, 2), workdir)
  return workdir


def test_two_processes_train_and_swap_as_one_does(alone, two):
  assert [first for first, _ in schedule(alone)] == [0, 6, 10]
  assert_same_run(two, alone)
  assert swaps(two) == swaps_told(two / "trainer-1.log") == swaps(alone)


@pytest.mark.slow
def test_four_processes_of_two_devices_and_two_builders_do_too(data, alone):
  workdir = data / "four"
  launcher = launch(data, workdir, 4, "--builders=2", JAX_NUM_CPU_DEVICES="2")
  finish(launcher, workdir)
  assert_same_run(workdir, alone)
  for number in (1, 2, 3):
    assert swaps_told(workdir / f"trainer-{number}.log") == swaps(workdir)


@pytest.mark.slow
def test_stopped_while_it_waits_and_killed_across_a_swap_a_run_ends_the_same(
  data, two, started
):
  """Searching on the devices, what is more."""
  workdir = data / "disturbed"
  cli = ["realm_jax.cli"]
  started += join(data, workdir, [cli, cli], ON_DEVICES)
  stop_while_waiting(*started, workdir)

  launcher = launch(data, workdir, 2, ON_DEVICES)
  started.append(launcher)
  wait_for(lambda: len(losses(workdir)) >= 8, launcher)
  [victim] = [
    child
    for child in psutil.Process(launcher.pid).children()
    if "--process_id=1" in child.cmdline()
  ]
  victim.kill()
  finish(launcher, workdir, code=128 + signal.SIGKILL)
  assert "Trainer 1 ended" in workdir.with_suffix(".log").read_text()
  assert checkpoints.newest_step(workdir) < LAST_STEP

  finish(launch(data, workdir, 2, ON_DEVICES), workdir)
  assert schedule(workdir) == schedule(two)
  assert same_params(workdir, two)


def stop_while_waiting(first, second, workdir):
  """Stops a group that has no builder: both wait for the first index."""
  wait_for((workdir / METRICS_FILE).exists, first)
  time.sleep(1.0)
  second.send_signal(signal.SIGTERM)  # The other is told.
  assert [process.wait(PATIENCE_SECONDS) for process in (first, second)] == [
    75,
    75,
  ]
  assert checkpoints.steps(workdir) == [0]


@pytest.mark.slow
def test_search_on_the_devices_of_two_processes_goes_on_after_a_stop(
  data, two, started
):
  workdir = data / "device"
  launcher = launch(data, workdir, 2, ON_DEVICES)
  started.append(launcher)
  wait_for(lambda: len(losses(workdir)) >= 7, launcher)
  launcher.terminate()
  finish(launcher, workdir, code=75)
  assert 7 <= checkpoints.newest_step(workdir) < LAST_STEP
  finish(launch(data, workdir, 2, ON_DEVICES), workdir)
  assert schedule(workdir) == schedule(two)
  assert same_params(workdir, two)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "8"])
def test_search_on_the_devices_trains_as_exact_search_does(
  data, alone, devices
):
  workdir = data / f"device_{devices}"
  launcher = launch(data, workdir, 1, ON_DEVICES, JAX_NUM_CPU_DEVICES=devices)
  finish(launcher, workdir)
  assert_same_run(workdir, alone)


@pytest.mark.slow
def test_a_host_that_opens_slowly_delays_all_and_no_batch_is_mixed(
  data, started
):
  workdir = data / "slow"
  script = "tests.integration.slow_host"
  # Every index is waited for: the oldest that is allowed is as old as any
  # must get.
  flags = [
    "--config.refresh.policy=async",
    "--config.refresh.max_staleness_steps=5",
  ]
  modules = [[script, "0"], [script, "2"]]
  stopped = join(data, workdir, modules, *flags)
  started += stopped
  stop_while_waiting(*stopped, workdir)
  trainers = join(data, workdir, modules, *flags)
  builder = start(
    workdir.with_suffix(".log"),
    ["realm_jax.cli", "build-index"],
    f"--workdir={workdir}",
    "--watch",
  )
  started += [*trainers, builder]
  for process in (*trainers, builder):
    finish(process, workdir)

  logs = [data / f"slow-{number}.log" for number in range(2)]
  assert swaps(workdir) == swaps_told(logs[0]) == swaps_told(logs[1])
  assert len(swaps(workdir)) >= 3
  # The first host, too, waited two seconds for every version.
  waited = [
    line.get("index/staleness_wait_seconds", 0) for line in records(workdir)
  ]
  assert sum(waited) > 2.0 * (len(swaps(workdir)) - 1)
  # Each batch was searched with the version of its step, on both hosts.
  planned = schedule(workdir)
  ends = [first for first, _ in planned[1:]] + [LAST_STEP]
  wanted = {
    version: end - first
    for (first, version), end in zip(planned, ends, strict=True)
  }
  for log in logs:
    searched = re.findall(r"searches (\S+)", log.read_text())
    assert collections.Counter(searched) == wanted
