# SPDX-License-Identifier: Apache-2.0
"""A stand-in for gcloud keeps the states of slices in files."""

import shlex
import subprocess
import threading

import pytest

from launch import tpu_vm
from tests.launch.conftest import CONFIG

# Of ml_collections, as it loads a config.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

HARD = """$(touch hacked) `id` "a" 'b' $HOME \\ ; * {x} é"""
FLAGS = (
  *["--image=registry/realm:1", "--zone=z", "--runtime_version=v2"],
  *["--accelerator_type=v5p-32", "--builder_accelerator_type=v5p-8"],
)
# A slice is a file with its node's state. What its workers do is in
# <name>.does, a line for each start: a code to exit with, after a state that
# the node is in then, if any.
GCLOUD = """
name=$5
case "$3 $4" in
  "queued-resources create") echo READY > slices/$name ;;
  "queued-resources delete") rm slices/$name ;;
  "queued-resources list")
    [ ! -e broken ] || exit 1
    separator=[
    for each in slices/*; do
      [ -e "$each" ] || break
      printf '%s{"name": "projects/p/queuedResources/%s", "state": {"state":
        "%s"}}' "$separator" "${each#slices/}" "$(cat queued || echo ACTIVE)"
      separator=,
    done 2>/dev/null
    [ $separator = [ ] && echo [] || echo ] ;;
  "tpu-vm list")
    separator=[
    for each in slices/*; do
      [ -e "$each" ] || break
      printf '%s{"name": "projects/p/nodes/%s", "state": "%s"}' \\
        "$separator" "${each#slices/}" "$(cat "$each")"
      separator=,
    done
    [ $separator = [ ] && echo [] || echo ] ;;
  "tpu-vm ssh")
    [ -e $name.does ] || exit 0
    read -r code state < $name.does
    sed -i 1d $name.does
    [ -z "$state" ] || { echo $state > $name.new; mv $name.new slices/$name; }
    [ -s $name.does ] || rm $name.does
    echo "worker says $code"
    [ "$code" != hang ] || exec sleep 60
    exit $code ;;
esac
"""


@pytest.fixture
def cloud(stand_ins, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "slices").mkdir()
  stand_ins.add("gcloud", GCLOUD)
  return stand_ins


def launch(*flags, stage="realm"):
  return tpu_vm.main(
    [
      *[f"--config={CONFIG}:{stage},/data", "--workdir=gs://bucket/run"],
      *[*FLAGS, "--logs=logs", "--poll_seconds=0.01", *flags],
    ]
  )


def did(cloud):
  """What was done with which slice, without looks at their states."""
  return [
    f"{call[4]} {call[5].removeprefix('run-')}"
    for call in cloud.calls()
    if call[4] != "list"
  ]


def test_slices_are_asked_for_started_watched_and_deleted(cloud):
  assert launch("--builders=2", "--spot", "--create=--network=n") == 0
  calls = [call for call in cloud.calls() if call[4] != "list"]
  names = ["run-trainer", "run-builder-0", "run-builder-1"]
  for name in names:
    actions = [call[4] for call in calls if call[5] == name]
    assert actions == ["create", "ssh", "delete"]
  # What runs on them starts side by side, in any order.
  assert [call[5] for call in calls[:3]] == names
  assert calls[0] == [
    *["gcloud", "compute", "tpus", "queued-resources", "create", "run-trainer"],
    *["--node-id=run-trainer", "--zone=z", "--accelerator-type=v5p-32"],
    *["--runtime-version=v2", "--spot", "--network=n", "--quiet"],
  ]
  assert "--accelerator-type=v5p-8" in calls[1]
  [ssh] = [call for call in calls if call[4:6] == ["ssh", "run-trainer"]]
  assert ssh[6:8] == ["--zone=z", "--worker=all"]
  assert calls[-1][6:] == ["--zone=z", "--force", "--quiet"]


def test_any_string_comes_to_the_trainer_as_it_was_given(cloud, tmp_path):
  launch(f"--config.data.corpus={HARD}", "--docker=--volume=/a b:/data")
  [ssh] = [call for call in cloud.calls() if "run-trainer" in call[4:6:1]][1:2]
  remote = ssh[-1].removeprefix("--command=")
  cloud.add("sudo")
  subprocess.run(["bash", "-c", remote], check=True)
  removed, ran = cloud.calls()
  assert removed == ["sudo", "docker", "rm", "--force", "realm"]
  assert ran == [
    *["sudo", "docker", "run", "--rm", "--name=realm", "--privileged"],
    *["--network=host", "--volume=/var/cache/realm:/cache"],
    *["--volume=/a b:/data", "registry/realm:1"],
    *["python", "-m", "realm_jax.cli", "train"],
    f"--config={CONFIG}:realm,/data",
    *["--workdir=gs://bucket/run", f"--config.data.corpus={HARD}"],
  ]
  assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("told", ["255 PREEMPTED", "hang PREEMPTED"])
def test_a_preempted_slice_is_asked_for_again(cloud, tmp_path, told):
  (tmp_path / "run-trainer.does").write_text(f"{told}\n0\n")
  assert launch("--max_restarts=0", stage="ict") == 0
  calls = did(cloud)
  # It may end before its state is known: that is no failure of its.
  assert calls == [
    *["create trainer", "ssh trainer", "delete trainer"],
    *["create trainer", "ssh trainer", "delete trainer"],
  ]
  assert "worker says" in (tmp_path / "logs" / "run-trainer.log").read_text()


def test_what_saved_and_stopped_is_started_again(cloud, tmp_path):
  (tmp_path / "run-trainer.does").write_text("75\n75\n0\n")
  assert launch("--max_restarts=0", stage="ict") == 0
  assert did(cloud).count("ssh trainer") == 3


def test_what_fails_too_often_ends_the_job_and_deletes_its_slices(
  cloud, tmp_path, capsys
):
  (tmp_path / "run-builder-0.does").write_text("1\n1\n1\n")
  (tmp_path / "run-trainer.does").write_text("hang\n")
  assert launch("--max_restarts=2") == 1
  calls = did(cloud)
  assert calls.count("ssh builder-0") == 3
  assert calls[-2:] == ["delete trainer", "delete builder-0"]
  assert "run-builder-0 failed 3 times" in capsys.readouterr().err


def test_a_job_goes_on_with_the_slices_that_there_are(cloud, tmp_path):
  (tmp_path / "slices" / "run-trainer").write_text("READY\n")
  assert launch("--keep", stage="ict") == 0
  assert did(cloud) == ["ssh trainer"]


def test_slices_that_cannot_be_had_are_an_error(cloud, tmp_path, capsys):
  (tmp_path / "slices" / "run-trainer").write_text("READY\n")
  (tmp_path / "queued").write_text("FAILED\n")
  assert launch(stage="ict") == 1
  assert "run-trainer is FAILED" in capsys.readouterr().err
  (tmp_path / "broken").touch()
  assert launch("--keep", stage="ict") == 1
  assert "gcloud failed" in capsys.readouterr().err


def test_delete_deletes(cloud, tmp_path):
  for name in ("run-trainer", "run-builder-0"):
    (tmp_path / "slices" / name).write_text("READY\n")
  assert launch("--delete") == 0
  assert did(cloud) == ["delete trainer", "delete builder-0"]


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(cloud, capsys):
  assert launch("--dry-run", "--config.data.corpus=a 'b") == 0
  printed = capsys.readouterr().out.splitlines()
  assert cloud.calls() == []
  launch("--config.data.corpus=a 'b")
  done = [shlex.join(call) for call in cloud.calls()]
  assert set(printed) == set(done) and len(printed) == 8


def test_builders_need_a_type(cloud, capsys):
  with pytest.raises(SystemExit):
    launch("--builder_accelerator_type=")
  assert "Give --builder_accelerator_type" in capsys.readouterr().err


def test_a_slice_that_waits_says_so_once(cloud, tmp_path, capsys):
  queued = tmp_path / "queued"
  queued.write_text("WAITING_FOR_RESOURCES")
  timer = threading.Timer(1.0, queued.unlink)
  timer.start()
  assert launch() == 0
  timer.join()
  told = capsys.readouterr().err
  assert told.count("run-trainer is WAITING_FOR_RESOURCES\n") == 1
  assert told.index("asks for v5p-32") < told.index("is WAITING_FOR_RES")
  assert told.index("is WAITING_FOR_RES") < told.index("run-trainer is done")
