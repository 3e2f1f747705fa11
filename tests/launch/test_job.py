# SPDX-License-Identifier: Apache-2.0
import pytest

from launch.job import Job, Parser, log_folder
from tests.launch.conftest import CONFIG

# Of ml_collections, as it loads a config.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")


def parse(*flags, stage="realm", workdir="/runs/My run"):
  parser = Parser("launch.x", "", python="python3")
  start = [f"--config={CONFIG}:{stage},/data", f"--workdir={workdir}"]
  return parser.parse_job([*start, *flags])[1]


def test_unknown_flags_go_to_the_trainers_alone():
  job = parse("--hosts=2", "--config.num_steps=7", "--may_differ=num_steps")
  assert job.trainer() == [
    *["python3", "-m", "realm_jax.cli", "train"],
    f"--config={CONFIG}:realm,/data",
    "--workdir=/runs/My run",
    *["--config.num_steps=7", "--may_differ=num_steps"],
  ]
  assert job.builder()[3:] == [
    *["build-index", "--workdir=/runs/My run", "--watch"]
  ]
  assert (job.name, job.hosts, job.builders) == ("my-run", 2, 1)


def test_a_stage_that_searches_nothing_gets_no_builder():
  assert parse("--builders=3", stage="ict").builders == 0


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.num_step=7"], "num_step"),
    (["--config.num_steps=many"], "num_steps"),
    (["--config.num_steps=0"], "num_steps"),
    (["--confg.num_steps=7"], "confg"),
    (["now"], "Unknown argument 'now'"),
    (["--hosts=3"], "batch_size (8) does not divide over 3 hosts"),
    (["--hosts=0"], "must be 1 or more"),
    (["--name=My run"], "got 'My run'"),
    (["--config.init.encoder=a\nb"], "has a line break"),
  ],
)
def test_what_would_fail_on_the_hosts_fails_here(capsys, flags, message):
  with pytest.raises(SystemExit) as failed:
    parse(*flags)
  assert failed.value.code == 2
  assert message in capsys.readouterr().err


def test_logs_are_in_the_workdir_or_where_they_can_be_appended_to():
  job = Job(config="c", workdir="/runs/x", name="x")
  assert str(log_folder(job, "")) == "/runs/x/logs"
  job = Job(config="c", workdir="gs://bucket/x", name="x")
  assert str(log_folder(job, "/logs")) == "/logs"
  with pytest.raises(ValueError, match="in gs://bucket/x: give --logs"):
    log_folder(job, "")
