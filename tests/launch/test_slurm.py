# SPDX-License-Identifier: Apache-2.0
"""The scripts run, under stand-ins for SLURM's commands."""

import os
import signal
import subprocess
import time

import pytest

from launch import slurm
from realm_jax.checkpoints import TRAINING_DONE
from tests.launch.conftest import CONFIG

# Of ml_collections, as it loads a config.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

HARD = """$(touch hacked) `id` "a" 'b' $HOME \\ ; * {x} é"""
# Without its own options; they end at the command.
SRUN = 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'


@pytest.fixture
def cluster(stand_ins, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  stand_ins.add("sbatch", "echo '41;here'")
  stand_ins.add("srun", SRUN)
  stand_ins.add("scontrol", 'if [ "$1" = show ]; then echo n1; echo n2; fi')
  stand_ins.add("squeue", "cat queue")
  stand_ins.add("scancel")
  return stand_ins


def submit(cluster, *flags, python="true"):
  workdir = f"--workdir={cluster.folder.parent}/a run"
  config = f"--config={CONFIG}:realm,/data"
  start = [config, workdir, f"--python={python}"]
  assert slurm.main([*start, *flags]) == 0
  return cluster.folder.parent / "a run" / "logs"


def run(script, *arguments, **environment):
  return subprocess.Popen(
    ["bash", str(script), *arguments],
    env=os.environ
    | {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "n[1-2]"}
    | environment,
  )


def test_two_jobs_are_submitted_and_the_builders_wait_for_the_trainers(cluster):
  logs = submit(
    *[cluster, "--hosts=2", "--builders=3", "--time=1:00:00"],
    *[
      "--gpus_per_node=8",
      "--cpus_per_task=16",
      "--partition=gpu",
      "--account=me",
    ],
    *["--sbatch=--qos=high", "--builder_sbatch=--partition=cpu"],
  )
  shared = ["--ntasks-per-node=1", "--partition=gpu", "--account=me"]
  shared += ["--time=1:00:00", "--gpus-per-node=8", "--cpus-per-task=16"]
  shared += ["--requeue"]
  trainer, builder = cluster.calls("sbatch")
  assert trainer == [
    *["sbatch", "--parsable", "--job-name=a-run-trainer", "--nodes=2"],
    *[*shared, f"--output={logs}/%x-%j.log", "--open-mode=append"],
    *["--qos=high", "--signal=TERM@120", f"{logs}/trainer.sh"],
  ]
  assert builder == [
    *["sbatch", "--parsable", "--job-name=a-run-builder-41", "--nodes=1"],
    *[*shared, f"--output={logs}/%x-%A_%a.log", "--open-mode=append"],
    *["--qos=high", "--partition=cpu", "--array=1-3"],
    *["--dependency=after:41", "--signal=B:USR1@60"],
    *[f"{logs}/builder.sh", "41"],
  ]


def test_any_string_comes_to_the_trainer_as_it_was_given(cluster, tmp_path):
  python = cluster.add("py 'thon", 'printf "%s" "$REALM_HOSTS" > hosts')
  logs = submit(
    cluster, f"--config.data.corpus={HARD}", "--cpus_per_task=4", python=python
  )
  cluster.calls()
  script = logs / "trainer.sh"
  subprocess.run(["bash", "-n", script], check=True)
  assert run(script, SLURM_CPUS_PER_TASK="4").wait() == 0
  scontrol, srun, trainer = cluster.calls()
  assert scontrol == ["scontrol", "show", "hostnames", "n[1-2]"]
  assert srun[:6] == [
    *["srun", "--kill-on-bad-exit=0", "--wait=300", "--open-mode=append"],
    *[f"--output={logs}/%x-%j-%t.log", "--cpus-per-task=4"],
  ]
  assert trainer[1:] == [
    *["-m", "realm_jax.cli", "train", f"--config={CONFIG}:realm,/data"],
    *[f"--workdir={tmp_path}/a run", f"--config.data.corpus={HARD}"],
  ]
  assert (tmp_path / "hosts").read_text() == "n1,n2"
  assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
  ("code", "then"),
  [
    (0, []),
    (75, [["scontrol", "requeue", "41"]]),
    (3, [["scancel", "--user={}", "--name=a-run-builder-41"]]),
  ],
)
def test_trainers_that_were_stopped_queue_again(cluster, code, then):
  python = cluster.add("python", f"exit {code}")
  logs = submit(cluster, "--max_restarts=0", python=python)
  cluster.calls()
  assert run(logs / "trainer.sh").wait() == code
  user = subprocess.check_output(["id", "-un"], text=True).strip()
  wanted = [[word.format(user) for word in call] for call in then]
  assert cluster.calls()[3:] == wanted


@pytest.mark.parametrize("flags", [(), ("--hetjob",)])
def test_trainers_that_fail_queue_again_so_many_times(cluster, flags):
  python = cluster.add("python", "exit 3")
  logs = submit(cluster, "--max_restarts=2", *flags, python=python)
  script = logs / ("hetjob.sh" if flags else "trainer.sh")
  requeue = ["scontrol", "requeue", "41"]
  for attempt in range(3):
    cluster.calls()
    assert run(script, SLURM_JOB_NAME="x").wait() == 3
    assert (requeue in cluster.calls()) == (attempt < 2)
  # Another job of the same run counts anew.
  assert run(script, SLURM_JOB_NAME="x", SLURM_JOB_ID="43").wait() == 3
  assert ["scontrol", "requeue", "43"] in cluster.calls()


@pytest.mark.parametrize(
  ("queued", "done"), [("", False), ("41 RUNNING\n", False), ("", True)]
)
def test_a_builder_queues_again_until_the_last_index_is_built(
  cluster, tmp_path, queued, done
):
  (tmp_path / "queue").write_text(queued)
  python = cluster.add("python", "touch began; exec sleep 60")
  logs = submit(cluster, python=python)
  cluster.calls()
  subprocess.run(["bash", "-n", logs / "builder.sh"], check=True)
  if done:
    (logs.parent / TRAINING_DONE).touch()
  builder = run(logs / "builder.sh", "40", SLURM_JOB_ID="42")
  while not (tmp_path / "began").exists():
    time.sleep(0.01)
  builder.send_signal(signal.SIGUSR1)
  assert builder.wait() == 75
  _, python, *then = cluster.calls()
  assert python[3:] == [
    *["build-index", f"--workdir={tmp_path}/a run", "--watch"]
  ]
  requeued = [["scontrol", "requeue", "42"]] if queued or done else []
  assert then == [["squeue", "--noheader", "--jobs=40"], *requeued]


def test_a_builder_ends_as_it_does_alone(cluster):
  logs = submit(cluster, python=cluster.add("python", "exit 7"))
  assert run(logs / "builder.sh", "41").wait() == 7


def test_one_heterogeneous_job_ends_with_its_builders(cluster, tmp_path):
  body = """case "$3" in
    train) code=$(cat code); [ $code != 0 ] || touch done; exit $code ;;
    *) until [ -e done ]; do sleep 0.05; done; touch built ;;
  esac"""
  flags = ["--hetjob", "--builders=2", "--builder_sbatch=--partition=cpu"]
  flags += ["--max_restarts=0"]
  logs = submit(cluster, *flags, python=cluster.add("python", body))
  [job] = cluster.calls("sbatch")
  trainers, builders = job[: job.index(":")], job[job.index(":") :]
  assert "--nodes=1" in trainers and "--nodes=2" in builders
  assert builders[-2:] == ["--partition=cpu", f"{logs}/hetjob.sh"]
  subprocess.run(["bash", "-n", logs / "hetjob.sh"], check=True)

  for code in (75, 3, 0):
    (tmp_path / "code").write_text(str(code))
    assert run(logs / "hetjob.sh").wait() == code
    assert (tmp_path / "built").exists() == (code == 0)
    requeued = ["scontrol", "requeue", "41"] in cluster.calls()
    assert requeued == (code == 75)


def test_a_dry_run_prints_all_and_does_nothing(cluster, capsys):
  logs = submit(cluster, "--dry-run", "--config.data.corpus=a 'b")
  assert cluster.calls() == [] and not logs.exists()
  text = capsys.readouterr().out
  submit(cluster, "--config.data.corpus=a 'b")
  for name in ("trainer.sh", "builder.sh"):
    assert (logs / name).read_text() in text
  assert f"--dependency=after:TRAINER_JOB --signal=B:USR1@60 '{logs}/" in text


def test_what_sbatch_refuses_ends_with_its_code(cluster):
  cluster.add("sbatch", "echo 'no such partition' >&2; exit 4")
  with pytest.raises(SystemExit) as failed:
    submit(cluster)
  assert failed.value.code == 4
  assert len(cluster.calls("sbatch")) == 1


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--logs=a%j"], "would replace the %"),
    (["--workdir=gs://b/run"], "give --logs"),
  ],
)
def test_logs_must_be_where_slurm_can_write(cluster, capsys, flags, message):
  with pytest.raises(SystemExit):
    submit(cluster, *flags)
  assert message in capsys.readouterr().err
