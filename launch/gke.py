# SPDX-License-Identifier: Apache-2.0
r"""Trains on Kubernetes: a JobSet of trainers and index builders.

    python -m launch.gke --config=experiments/….py --workdir=gs://bucket/realm \
      --image=<registry>/realm --hosts=4 --gpu=nvidia-h100-80gb \
      --devices_per_host=8

hands the manifest to `kubectl apply`; --dry-run prints it. The cluster needs
the JobSet controller, and node pools of that GPU or TPU (--tpu=tpu-v5p-slice
--topology=2x2x4 --builder_topology=2x2x1 --devices_per_host=4). The image is
made by launch/Dockerfile; --config names a file in it, which is read here, too.

Where a node is taken away, or a trainer is stopped, saves and exits with 75,
all start again from the last checkpoint; so they do after other failures, up to
--max_restarts times. `kubectl get jobset` shows how it goes, `kubectl logs -l
jobset.sigs.k8s.io/jobset-name=<name> --prefix` what is said.
"""

import argparse
from collections.abc import Sequence
import math
import re
import subprocess
import sys
from typing import Any

import yaml

from launch.job import Job, Parser, count
from realm_jax.train.stop import STOPPED_EXIT_CODE

_PORT = 8476
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
# For a checkpoint to be written; nodes that are preempted may give less.
_GRACE_SECONDS = 300
_BUILDER_RETRIES = 20


def main(argv: Sequence[str]) -> int:
  """Applies the manifest, or prints it; returns the exit code."""
  parser = _parser()
  given, job = parser.parse_job(argv)
  try:
    _check_devices(job, given)
    text = yaml.safe_dump(manifest(job, given), sort_keys=False)
  except ValueError as error:
    parser.error(str(error))
  if given.dry_run:
    print(text, end="")
    return 0
  done = subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True)
  return done.returncode


def manifest(job: Job, given: argparse.Namespace) -> dict[str, Any]:
  """Returns the JobSet.

  Raises:
    ValueError: a --claim is not <name>:<path>.
  """
  metadata = {"name": job.name}
  if given.namespace:
    metadata["namespace"] = given.namespace
  jobs = [{"name": "trainer", "template": _trainer(job, given)}]
  if job.builders:
    jobs.append({"name": "builder", "template": _builder(job, given)})
  # Of a node that goes, or a trainer that was asked to stop.
  stopped = {
    "name": "stopped",
    "action": "RestartJobSetAndIgnoreMaxRestarts",
    "targetReplicatedJobs": ["trainer"],
    "onJobFailureReasons": ["PodFailurePolicy"],
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": metadata,
    "spec": {
      "failurePolicy": {"maxRestarts": given.max_restarts, "rules": [stopped]},
      "replicatedJobs": jobs,
    },
  }


def _parser() -> Parser:
  parser = Parser("launch.gke", __doc__ or "", python="python")
  parser.add_argument("--image", required=True, help="Of launch/Dockerfile.")
  kind = parser.add_mutually_exclusive_group(required=True)
  kind.add_argument(
    "--gpu", help="Of the node pool, as cloud.google.com/gke-accelerator says."
  )
  kind.add_argument(
    "--tpu", help="… as cloud.google.com/gke-tpu-accelerator says."
  )
  parser.add_argument(
    "--devices_per_host", type=count(1), required=True, help="GPUs, or chips."
  )
  parser.add_argument(
    "--builder_devices", type=count(1), help="By default as many."
  )
  parser.add_argument(
    "--topology", help="Of the trainers' TPU slice, such as 2x2x4."
  )
  parser.add_argument(
    "--builder_topology", help="Of each builder's slice of one host."
  )
  parser.add_argument(
    "--claim",
    action="append",
    default=[],
    metavar="NAME:PATH",
    help="A PersistentVolumeClaim to mount, for the corpus or the workdir; may "
    "be given several times.",
  )
  parser.add_argument(
    "--copy",
    metavar="PATH",
    help="A folder of a claim: hosts copy what they open of it (REALM_COPY).",
  )
  parser.add_argument("--namespace", help="By default kubectl's.")
  parser.add_argument(
    "--service_account", help="Of Kubernetes, with access to the bucket."
  )
  parser.add_argument(
    "--spot", action="store_true", help="On nodes that may be taken away."
  )
  return parser


def _check_devices(job: Job, given: argparse.Namespace) -> None:
  """Refuses TPU slices that have other hosts or chips than they were given."""
  slices = {"topology": (given.topology, job.hosts * given.devices_per_host)}
  if job.builders:
    chips = given.builder_devices or given.devices_per_host
    slices["builder_topology"] = (given.builder_topology, chips)
  for flag, (topology, chips) in slices.items():
    if bool(topology) != bool(given.tpu):
      raise ValueError(f"--{flag} goes with --tpu, and --tpu with it.")
    if not topology:
      continue
    if not re.fullmatch(r"\d+(x\d+){1,2}", topology):
      raise ValueError(f"--{flag} must be like 2x2x4, got {topology!r}.")
    if (found := math.prod(map(int, topology.split("x")))) != chips:
      raise ValueError(
        f"--{flag}={topology} has {found} chips, and its hosts have {chips}: "
        "mind --hosts and --devices_per_host, or --builder_devices."
      )


def _trainer(job: Job, given: argparse.Namespace) -> dict[str, Any]:
  environment: list[dict[str, Any]] = []
  # GKE tells the hosts of a TPU slice, and JAX reads it.
  if job.hosts > 1 and not given.tpu:
    hosts = [f"{job.name}-trainer-0-{i}" for i in range(job.hosts)]
    environment = [
      _variable("JAX_COORDINATOR_ADDRESS", f"{hosts[0]}.{job.name}:{_PORT}"),
      _variable("JAX_NUM_PROCESSES", str(job.hosts)),
      {
        "name": "JAX_PROCESS_ID",
        "valueFrom": {"fieldRef": {"fieldPath": _INDEX}},
      },
      _variable("REALM_HOSTS", ",".join(hosts)),
    ]
  rules: list[dict[str, Any]] = [
    {
      "action": "FailJob",
      "onExitCodes": {
        "containerName": "trainer",
        "operator": "In",
        "values": [STOPPED_EXIT_CODE],
      },
    },
    {"action": "FailJob", "onPodConditions": [{**_DISRUPTED}]},
  ]
  pod = _pod(
    "trainer",
    job.trainer(),
    environment,
    given.topology,
    given.devices_per_host,
    given,
  )
  template = _job_template(job.hosts, 0, rules, pod)
  if given.tpu and job.hosts > 1:
    # All on one slice, which is a node pool.
    template["metadata"] = {
      "annotations": {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": (
          "cloud.google.com/gke-nodepool"
        )
      }
    }
  return template


def _builder(job: Job, given: argparse.Namespace) -> dict[str, Any]:
  # One that fails is started again without the others.
  pod = _pod(
    "builder",
    job.builder(),
    [],
    given.builder_topology,
    given.builder_devices or given.devices_per_host,
    given,
  )
  rules = [{"action": "Ignore", "onPodConditions": [{**_DISRUPTED}]}]
  return _job_template(job.builders, _BUILDER_RETRIES, rules, pod)


def _job_template(
  pods: int, retries: int, rules: list[dict[str, Any]], pod: dict[str, Any]
) -> dict[str, Any]:
  return {
    "spec": {
      "completionMode": "Indexed",
      "completions": pods,
      "parallelism": pods,
      "backoffLimit": retries,
      "podFailurePolicy": {"rules": rules},
      "template": {"spec": pod},
    }
  }


def _pod(
  name: str,
  command: Sequence[str],
  environment: list[dict[str, Any]],
  topology: str | None,
  devices: int,
  given: argparse.Namespace,
) -> dict[str, Any]:
  volumes, mounts = _volumes(given)
  resource = "google.com/tpu" if given.tpu else "nvidia.com/gpu"
  selector = {"cloud.google.com/gke-accelerator": given.gpu}
  if given.tpu:
    selector = {
      "cloud.google.com/gke-tpu-accelerator": given.tpu,
      "cloud.google.com/gke-tpu-topology": topology,
    }
  if given.spot:
    selector["cloud.google.com/gke-spot"] = "true"
  account = {"serviceAccountName": given.service_account}
  return {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": _GRACE_SECONDS,
    **(account if given.service_account else {}),
    "nodeSelector": selector,
    "containers": [
      {
        "name": name,
        "image": given.image,
        "command": [_unexpanded(word) for word in command],
        "env": [*environment, *_caching(given)],
        "resources": {"limits": {resource: devices}},
        "volumeMounts": mounts,
      }
    ],
    "volumes": volumes,
  }


def _caching(given: argparse.Namespace) -> list[dict[str, Any]]:
  folders = {"REALM_CACHE": "/cache", "REALM_COPY": given.copy}
  return [_variable(name, path) for name, path in folders.items() if path]


def _volumes(
  given: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Returns the volumes and where they are mounted."""
  volumes: list[dict[str, Any]] = [
    {"name": "cache", "emptyDir": {}},
    # NCCL's processes share more than the 64 MB that there are otherwise.
    {"name": "memory", "emptyDir": {"medium": "Memory"}},
  ]
  mounts = [
    {"name": "cache", "mountPath": "/cache"},
    {"name": "memory", "mountPath": "/dev/shm"},
  ]
  for number, claim in enumerate(given.claim):
    if not (found := re.fullmatch(r"([a-z0-9.-]+):(/[^:]+)", claim)):
      raise ValueError(f"--claim must be <name>:/<path>, got {claim!r}.")
    name = f"claim-{number}"
    source = {"claimName": found[1]}
    volumes.append({"name": name, "persistentVolumeClaim": source})
    mounts.append({"name": name, "mountPath": found[2]})
  return volumes, mounts


def _variable(name: str, value: str) -> dict[str, str]:
  return {"name": name, "value": value}


def _unexpanded(word: str) -> str:
  """Returns a word that Kubernetes takes as it was: it expands $(…)."""
  return word.replace("$", "$$")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
