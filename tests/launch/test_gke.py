# SPDX-License-Identifier: Apache-2.0
"""Manifests are held to the published schemas of JobSet and Kubernetes."""

import copy
import pathlib
import re

from kubeflow_trainer_api import models
import kubernetes_validate
import pytest
import yaml

from launch import gke
from tests.launch.conftest import CONFIG

# Of ml_collections, as it loads a config.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

HARD = "$(JAX_PROCESS_ID) $HOME $$ 'a' \"b\" : - # é"
GPU = ("--hosts=2", "--gpu=nvidia-h100-80gb", "--devices_per_host=8")
TPU = (
  *["--hosts=4", "--tpu=tpu-v5p-slice", "--topology=2x2x4"],
  *["--builder_topology=2x2x1", "--devices_per_host=4"],
)
ALL = (
  *["--builders=2", "--builder_devices=1", "--claim=texts:/data", "--spot"],
  "--copy=/data",
  *["--claim=more:/more", "--namespace=team", "--service_account=realm"],
  f"--config.data.corpus={HARD}",
)


def arguments(*flags, stage="realm"):
  return [
    f"--config={CONFIG}:{stage},/data",
    *["--workdir=gs://bucket/run", "--image=registry/realm:1", *flags],
  ]


@pytest.fixture
def render(capsys):
  def run(*flags, **settings):
    assert gke.main([*arguments(*flags, **settings), "--dry-run"]) == 0
    return yaml.safe_load(capsys.readouterr().out)

  return run


def jobs(manifest):
  return {
    job["name"]: job["template"]["spec"]
    for job in manifest["spec"]["replicatedJobs"]
  }


def container(job):
  [found] = job["template"]["spec"]["containers"]
  return found


def unknown(given, known, path=""):
  """What a model of the schema did not take over."""
  if isinstance(given, dict):
    for key, value in given.items():
      if not isinstance(known, dict) or key not in known:
        yield f"{path}.{key}"
      else:
        yield from unknown(value, known[key], f"{path}.{key}")
  elif isinstance(given, list):
    for number, pair in enumerate(zip(given, known, strict=True)):
      yield from unknown(*pair, f"{path}[{number}]")


def check_jobset(manifest):
  manifest = copy.deepcopy(manifest)
  for job in jobs(manifest).values():
    # Their model of a quantity takes neither number nor string.
    del container(job)["resources"]
  model = models.JobsetV1alpha2JobSet.model_validate(manifest)
  known = model.model_dump(by_alias=True, exclude_none=True, mode="json")
  assert not list(unknown(manifest, known))


def check_jobs(manifest):
  for name, spec in jobs(manifest).items():
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    kubernetes_validate.validate(job | {"spec": spec}, "1.37", strict=True)


@pytest.mark.parametrize(
  "flags", [GPU, TPU, (*GPU, *ALL), (*GPU, "--builders=0")]
)
def test_manifests_are_valid(render, flags):
  manifest = render(*flags)
  check_jobset(manifest)
  check_jobs(manifest)


def test_the_schemas_find_what_is_wrong(render):
  manifest = render(*GPU)
  manifest["spec"]["failurePolicy"]["maxRestart"] = 3
  with pytest.raises(AssertionError, match="maxRestart"):
    check_jobset(manifest)
  trainer = jobs(manifest)["trainer"]
  trainer["podFailurePolicy"]["rules"][0]["onExitCodes"]["value"] = [75]
  with pytest.raises(kubernetes_validate.ValidationError, match="value"):
    check_jobs(manifest)


def test_trainers_are_told_of_each_other(render):
  trainer = jobs(render(*GPU))["trainer"]
  assert (trainer["completions"], trainer["parallelism"]) == (2, 2)
  assert trainer["completionMode"] == "Indexed"
  variables = {each["name"]: each for each in container(trainer)["env"]}
  assert variables["JAX_COORDINATOR_ADDRESS"]["value"] == (
    "run-trainer-0-0.run:8476"
  )
  assert variables["JAX_NUM_PROCESSES"]["value"] == "2"
  index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  source = variables["JAX_PROCESS_ID"]["valueFrom"]
  assert source == {"fieldRef": {"fieldPath": index}}
  assert variables["REALM_HOSTS"]["value"] == "run-trainer-0-0,run-trainer-0-1"


def test_one_trainer_and_hosts_of_a_tpu_slice_are_told_nothing(render):
  for flags in ((*GPU, "--hosts=1"), TPU):
    trainer = jobs(render(*flags))["trainer"]
    names = {each["name"] for each in container(trainer)["env"]}
    assert names == {"REALM_CACHE"}


def test_all_pods_are_told_what_to_copy(render):
  for job in jobs(render(*GPU, *ALL)).values():
    variables = {each["name"]: each for each in container(job)["env"]}
    assert variables["REALM_COPY"]["value"] == "/data"


def test_stopped_and_preempted_trainers_start_again_uncounted(render):
  manifest = render(*GPU)
  trainer, builder = jobs(manifest).values()
  codes, disrupted = trainer["podFailurePolicy"]["rules"]
  assert codes["onExitCodes"]["values"] == [75]
  assert {codes["action"], disrupted["action"]} == {"FailJob"}
  assert trainer["backoffLimit"] == 0
  [rule] = manifest["spec"]["failurePolicy"]["rules"]
  assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  # A builder alone does not stop the trainers.
  assert builder["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
  assert builder["backoffLimit"] > 0


def test_pods_go_to_nodes_with_their_devices(render):
  trainer, builder = jobs(render(*TPU)).values()
  pods = [job["template"]["spec"] for job in (trainer, builder)]
  assert [pod["nodeSelector"] for pod in pods] == [
    {
      "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
      "cloud.google.com/gke-tpu-topology": topology,
    }
    for topology in ("2x2x4", "2x2x1")
  ]
  trainer, builder = jobs(render(*GPU, *ALL)).values()
  assert [
    container(job)["resources"]["limits"] for job in (trainer, builder)
  ] == [{"nvidia.com/gpu": 8}, {"nvidia.com/gpu": 1}]


def test_a_stage_that_searches_nothing_gets_no_builder(render):
  assert list(jobs(render(*GPU, stage="ict"))) == ["trainer"]


def expanded(word, variables):
  """As Kubernetes expands a command: $(NAME), and $$ for a dollar."""

  def put(found):
    if found[0] == "$$":
      return "$"
    return variables.get(found[1], found[0])

  return re.sub(r"\$\$|\$\(([^)]*)\)", put, word)


def test_any_string_comes_to_the_trainer_as_it_was_given(render):
  command = container(jobs(render(*GPU, *ALL))["trainer"])["command"]
  words = [expanded(word, {"JAX_PROCESS_ID": "hacked"}) for word in command]
  assert words == [
    *["python", "-m", "realm_jax.cli", "train"],
    f"--config={CONFIG}:realm,/data",
    *["--workdir=gs://bucket/run", f"--config.data.corpus={HARD}"],
  ]


def test_the_manifest_is_handed_to_kubectl(stand_ins, capsys, tmp_path):
  stand_ins.add("kubectl", f"cat > {tmp_path}/applied; exit 3")
  assert gke.main(arguments(*GPU)) == 3
  assert stand_ins.calls() == [["kubectl", "apply", "-f", "-"]]
  gke.main([*arguments(*GPU), "--dry-run"])
  assert (tmp_path / "applied").read_text() == capsys.readouterr().out
  assert stand_ins.calls() == []


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      (*TPU, "--topology=4x4x4"),
      "--topology=4x4x4 has 64 chips, and its hosts",
    ),
    ((*TPU, "--builder_devices=8"), "--builder_topology=2x2x1 has 4 chips"),
    ((*TPU, "--topology=4-4"), "must be like 2x2x4, got '4-4'"),
    ((*GPU, "--topology=4x4"), "--topology goes with --tpu"),
    ((*GPU, "--tpu=v6e"), "not allowed with argument --gpu"),
    ((*GPU, "--claim=data"), "--claim must be <name>:/<path>, got 'data'"),
  ],
)
def test_what_does_not_fit_together_is_refused(capsys, flags, message):
  with pytest.raises(SystemExit) as failed:
    gke.main(arguments(*flags))
  assert failed.value.code == 2
  assert message in capsys.readouterr().err


def test_the_image_is_made_of_what_there_is():
  root = pathlib.Path(gke.__file__).parents[1]
  text = (root / "launch" / "Dockerfile").read_text()
  copied = re.findall(r"(?m)^COPY (.*) \S+$", text)
  names = [name for line in copied for name in line.split()]
  assert names and all((root / name).exists() for name in names)
  kept = (root / "launch" / "Dockerfile.dockerignore").read_text().split()
  assert [f"!{name}" for name in names] == kept[1:-1]
