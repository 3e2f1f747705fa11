# SPDX-License-Identifier: Apache-2.0
"""Trainers, a builder and a store on hosts of their own, with links to cut."""

import json
import sys
import time

import pytest

from tests import gcs_server
from tests.integration.jobs import CONFIG, write_data
from tests.network import hosts

pytestmark = pytest.mark.slow

TRAINERS = ("trainer-0", "trainer-1")
PORT = 8080  # Of the store.
# For what is cut off. JAX's heartbeats end all after 50 s at the earliest.
WAIT_SECONDS = 40
SLACK_SECONDS = 90  # A store is asked again for so long.
PATIENCE_SECONDS = 1800.0  # With a machine that has other work, too.
LAST_STEP = 24  # Of the tiny run.
FOR_A_PEER = f"--peer_wait_seconds={WAIT_SECONDS}"
FOR_AN_INDEX = (
  f"--config.refresh.wait_seconds={WAIT_SECONDS}.0",
  "--may_differ=refresh.wait_seconds",
)


class Cluster:
  """Two trainers' hosts, a builder's, and a store that holds the workdir."""

  def __init__(self, network, folder):
    self.network, self.folder = network, folder
    self.logs = folder / "logs"
    self.logs.mkdir()
    self._environment = gcs_server.environment(f"http://store:{PORT}")
    self.start(
      "store",
      *["tests.gcs_server", "start", "--quiet", "--host=0.0.0.0"],
      *[f"--port={PORT}", "--in-memory", "--default-bucket=bucket"],
    )

  def start(self, host, module, *arguments):
    return self.network.start(
      host,
      self.log(host),
      *[sys.executable, "-m", module, *arguments],
      **self._environment,
      REALM_CACHE=str(self.folder / "cache" / host),
    )

  def log(self, host):
    return self.logs / f"{host}.log"

  def said(self, host):
    return self.log(host).read_text()

  def trainers(self, run, *flags):
    return [
      self.start(
        host,
        *["realm_jax.cli", "train", f"--config={CONFIG}:realm,{self.folder}"],
        *[f"--workdir={url(run)}", "--coordinator=trainer-0:4000"],
        *["--num_processes=2", f"--process_id={number}", *flags],
      )
      for number, host in enumerate(TRAINERS)
    ]

  def builder(self, run):
    return self.start(
      "builder",
      *["realm_jax.cli", "build-index", f"--workdir={url(run)}", "--watch"],
    )

  def finish(self, *processes):
    for process in processes:
      assert process.wait(PATIENCE_SECONDS) == 0, self.last_words()

  def fail_in_time(self, *processes):
    """Waits until processes end with an error, as something is cut off."""
    deadline = time.monotonic() + WAIT_SECONDS + SLACK_SECONDS
    for process in processes:
      code = process.wait(deadline - time.monotonic())
      assert code == 1, self.last_words()

  def train_to(self, step, run, *flags):
    """Starts trainers and returns them once process 0 has taken some steps."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    # On a machine that is busy one may be late beyond what is cut off.
    while time.monotonic() < deadline:
      began = len(self.said(TRAINERS[0]))
      trainers = self.trainers(run, *flags)
      while any(trainer.poll() is None for trainer in trainers):
        if f" {step}/{LAST_STEP} " in self.said(TRAINERS[0])[began:]:
          return trainers
        time.sleep(0.02)
    raise AssertionError(self.last_words())

  def cut(self, host):
    self._cut_at = {path.stem: len(path.read_text()) for path in self._logs()}
    self.network.cut(host)

  def said_since(self, host):
    """What was said after the last link was cut."""
    return self.said(host)[self._cut_at[host] :]

  def last_words(self):
    lines = []
    for log in self._logs():
      lines += [f"{log.stem}:", *log.read_text().splitlines()[-12:]]
    return "\n".join(lines)

  def _logs(self):
    return sorted(self.logs.glob("*.log"))

  def outcome(self, run):
    log = self.folder / f"{run}.json"
    asked = self.network.start(
      "builder",
      log,
      *[sys.executable, "-m", "tests.network.outcome", url(run)],
      **self._environment,
    )
    self.finish(asked)
    return json.loads(log.read_text().splitlines()[-1])


def url(run):
  return f"gs://bucket/{run}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  if reason := hosts.why_not():
    pytest.skip(reason)
  folder = tmp_path_factory.mktemp("network")
  write_data(folder, tiny_tokenizer, tiny_corpus)
  names = [*TRAINERS, "builder", "store"]
  with hosts.Network(folder, names) as network:
    yield Cluster(network, folder)


@pytest.fixture(scope="module")
def undisturbed(cluster):
  jobs = [*cluster.trainers("undisturbed"), cluster.builder("undisturbed")]
  cluster.finish(*jobs)
  return cluster.outcome("undisturbed")


def test_hosts_that_are_cut_off_are_named_and_a_restart_ends_the_same(
  cluster, undisturbed
):
  builder = cluster.builder("cut")
  trainers = cluster.train_to(9, "cut", FOR_A_PEER)
  cluster.cut("trainer-1")
  cluster.fail_in_time(*trainers)
  first, second = map(cluster.said_since, TRAINERS)
  assert "Processes 1 (trainer-1) of 2 did not come to where" in first
  assert "process 0 (trainer-0) does not say which" in second
  cluster.network.mend("trainer-1")

  trainers = cluster.train_to(13, "cut", *FOR_AN_INDEX)
  cluster.cut("builder")
  cluster.fail_in_time(*trainers)
  for host in TRAINERS:
    assert "The index of checkpoint 16 did not" in cluster.said_since(host)
  cluster.fail_in_time(builder)
  assert "to host store:8080" in cluster.said_since("builder")
  cluster.network.mend("builder")

  again = [*cluster.trainers("cut", *FOR_AN_INDEX[1:]), cluster.builder("cut")]
  cluster.finish(*again)
  assert cluster.outcome("cut") == undisturbed
