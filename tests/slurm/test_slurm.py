# SPDX-License-Identifier: Apache-2.0
"""`launch.slurm` on a real SLURM, whose nodes are processes of this machine."""

import pathlib
import re
import subprocess
import sys
import time

import pytest

from experiments.factbook_demo import examples, run
from realm_jax import checkpoints
from tests.integration.jobs import ROOT, same_params, schedule

pytestmark = pytest.mark.slow

FOLDER = pathlib.Path(__file__).parent
NOT_INSTALLED = 69  # As up.sh says it.
FIELDS = {"capital", "coastline", "elevation", "population"}
PATIENCE_SECONDS = 1800.0  # With a machine that has other work, too.
LAST_STEP = 40
# Cut to what takes seconds: no warm-up, and three refreshes.
CUT = (
  "--config.init.retriever=",
  "--config.init.encoder=",
  f"--config.num_steps={LAST_STEP}",
  "--config.batch_size=8",
  "--config.log_every_steps=1",
  # Which index serves which step must not depend on who is faster.
  "--config.refresh.policy=lockstep",
  "--config.refresh.every_steps=12",
  "--config.refresh.lag_steps=6",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  """A controller and three nodes, which SLURM's commands find."""
  folder = tmp_path_factory.mktemp("slurm")
  up = subprocess.run(
    [FOLDER / "up.sh", folder, "3"], stderr=subprocess.PIPE, text=True
  )
  if up.returncode == NOT_INSTALLED:
    pytest.skip(up.stderr)
  try:
    assert up.returncode == 0, up.stderr
    with pytest.MonkeyPatch.context() as patch:
      patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
      yield
  finally:
    subprocess.run([FOLDER / "down.sh", folder], check=True)


@pytest.fixture
def stand_in(tmp_path):
  """Returns what makes a `python` of a few lines of sh; $3 says for what."""

  def make(body):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"--python={path}"

  return make


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
  """What the demo's pre-training reads, of fewer documents."""
  directory = tmp_path_factory.mktemp("demo")
  few = [
    document
    for document in examples.demo_documents()
    if document.uid.rpartition("/")[2] in FIELDS
  ]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(examples, "demo_documents", lambda: few)
    assert run.main([f"--directory={directory}", "--prepare_only"]) == 0
  return directory


def submit(workdir, *flags, demo="none"):
  """Returns the numbers of the trainers' job and of the builders'."""
  config = ROOT / "experiments" / "factbook_demo" / "realm.py"
  told = subprocess.run(
    [
      *[sys.executable, "-m", "launch.slurm", f"--config={config}:{demo}"],
      *[f"--workdir={workdir}", "--hosts=2", *CUT, *flags],
    ],
    cwd=ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout
  return re.findall(r": job (\d+), logs in", told)


def shown(job):
  """What SLURM knows of a job, by name."""
  text = subprocess.check_output(
    ["scontrol", "--oneliner", "show", "job", job], text=True
  )
  return dict(re.findall(r"(\w+)=(\S*)", text))


def wait_for(condition, workdir):
  deadline = time.monotonic() + PATIENCE_SECONDS
  while not condition():
    assert time.monotonic() < deadline, last_words(workdir)
    time.sleep(0.2)


def finish(jobs, workdir, state="COMPLETED"):
  over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
  for job in jobs:
    wait_for(lambda job=job: shown(job)["JobState"] in over, workdir)
    assert shown(job)["JobState"] == state, last_words(workdir)


def last_words(workdir):
  lines = []
  for log in sorted((workdir / "logs").glob("*.log")):
    lines += [f"{log}:", *log.read_text().splitlines()[-12:]]
  return "\n".join(lines)


def took_step(workdir, step):
  metrics = workdir / "metrics.jsonl"
  return metrics.exists() and f'{{"step": {step},' in metrics.read_text()


def test_requeued_trainers_and_builders_end_as_undisturbed_ones(cluster, demo):
  undisturbed, requeued = demo / "undisturbed", demo / "requeued"
  finish(submit(undisturbed, demo=demo), undisturbed)
  assert [first for first, _ in schedule(undisturbed)] == [0, 18, 30]

  jobs = submit(requeued, demo=demo)
  # Past the swap of step 18; the next one is not yet.
  wait_for(lambda: took_step(requeued, 20), requeued)
  for job in jobs:
    subprocess.run(["scontrol", "requeue", job], check=True)
  wait_for(lambda: shown(jobs[0])["JobState"] == "PENDING", requeued)
  assert 12 <= checkpoints.newest_step(requeued) < LAST_STEP
  finish(jobs, requeued)
  assert [shown(job)["Restarts"] for job in jobs] == ["1", "1"]
  assert schedule(requeued) == schedule(undisturbed)
  # Every bit: the same two processes add up in the same order.
  assert same_params(requeued, undisturbed)


def test_before_their_time_is_up_both_jobs_queue_again(
  cluster, stand_in, tmp_path
):
  # A minute, so the signals of the last two come at once.
  python = stand_in(
    """
    [ "$SLURM_RESTART_COUNT" ] && exit 0
    [ "$3" = train ] && trap 'exit 75' TERM
    sleep 600 & wait"""
  )
  jobs = submit(tmp_path / "run", "--time=1", python)
  finish(jobs, tmp_path / "run")
  assert [shown(job)["Restarts"] for job in jobs] == ["1", "1"]


def test_trainers_that_fail_take_the_builders_with_them(
  cluster, stand_in, tmp_path
):
  python = stand_in('[ "$3" = train ] && exit 3; exec sleep 600')
  trainers, builders = submit(tmp_path / "run", "--max_restarts=0", python)
  finish([trainers], tmp_path / "run", "FAILED")
  finish([builders], tmp_path / "run", "CANCELLED")


def test_jobs_that_a_person_cancels_stay_cancelled(cluster, stand_in, tmp_path):
  # As trainers and builders do, they save and end when they are told to.
  python = stand_in("trap 'exit 75' TERM; sleep 600 & wait")
  jobs = submit(tmp_path / "run", python)
  for job in jobs:
    wait_for(lambda job=job: shown(job)["JobState"] == "RUNNING", tmp_path)
  time.sleep(2)  # Until the traps are set.
  subprocess.run(["scancel", *jobs], check=True)
  finish(jobs, tmp_path / "run", "CANCELLED")
  time.sleep(5)
  assert [shown(job)["JobState"] for job in jobs] == ["CANCELLED"] * 2
  assert [shown(job)["Restarts"] for job in jobs] == ["0", "0"]


def test_trainers_that_failed_once_queue_again(cluster, stand_in, tmp_path):
  python = stand_in(
    """
    [ "$SLURM_RESTART_COUNT" ] || [ "$3" != train ] || exit 3
    exit 0"""
  )
  (trainers, _) = submit(tmp_path / "run", python)
  finish([trainers], tmp_path / "run")
  assert shown(trainers)["Restarts"] == "1"
