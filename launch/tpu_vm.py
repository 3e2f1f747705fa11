# SPDX-License-Identifier: Apache-2.0
r"""Trains on Cloud TPU VMs: a slice of trainers, and one for each builder.

    python -m launch.tpu_vm --config=experiments/….py \
      --workdir=gs://bucket/run --image=<registry>/realm --zone=us-east5-a \
      --runtime_version=v2-alpha-tpuv5 --accelerator_type=v5p-32 --hosts=4 \
      --builder_accelerator_type=v5p-8 --spot

asks gcloud for the slices (queued resources), starts a container of
launch/Dockerfile on all workers, and watches. A slice that is preempted is
deleted and asked for again, a process that was stopped and saved is started
again, and both go on from the last checkpoint. A slice is deleted when its work
is done, all are after a failure, and none with --keep. When this command is
stopped they stay: the same command goes on from the last checkpoint, and
--delete deletes them. What the workers say is in --logs. --config names a file
in the image, which is read here, too.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
import time

from launch.job import Job, Parser, log_folder
from realm_jax import files
from realm_jax.train.stop import STOPPED_EXIT_CODE

_TPUS = ("gcloud", "compute", "tpus")
_CONTAINER = "realm"
# Of a queued resource, and of the nodes that it has got.
_WAITING = (
  *["CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"],
  *["RESTARTING", "REPAIRING", "STARTING", "REIMAGING", "DELETING"],
)
_READY = "READY"
_GONE = ("SUSPENDING", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPED")


class Failed(Exception):
  """A slice cannot do its work; says why."""


@dataclasses.dataclass
class Slice:
  """A TPU slice, and what all its workers run."""

  name: str
  accelerator_type: str
  command: list[str]
  is_done: bool = False
  failures: int = 0  # Since it was made.
  waits: str = ""  # The state in which it was told to be, while it waits.
  process: subprocess.Popen | None = None

  @property
  def code(self) -> int | None:
    """How its work ended; None where none has."""
    return self.process.poll() if self.process else None

  def create(self, given: argparse.Namespace) -> list[str]:
    """Returns the command that asks for it."""
    return [
      *[*_TPUS, "queued-resources", "create", self.name],
      f"--node-id={self.name}",
      f"--zone={given.zone}",
      f"--accelerator-type={self.accelerator_type}",
      f"--runtime-version={given.runtime_version}",
      *(["--spot"] if given.spot else []),
      *given.create,
      "--quiet",
    ]

  def start(self, given: argparse.Namespace) -> list[str]:
    """Returns the command that runs the container on all workers."""
    # One that a lost connection has left behind would hold the chips.
    remove = ["sudo", "docker", "rm", "--force", _CONTAINER]
    run = [
      *["sudo", "docker", "run", "--rm", f"--name={_CONTAINER}"],
      *["--privileged", "--network=host", "--volume=/var/cache/realm:/cache"],
      *given.docker,
      *[given.image, *self.command],
    ]
    return [
      *[*_TPUS, "tpu-vm", "ssh", self.name, f"--zone={given.zone}"],
      *["--worker=all", "--ssh-flag=-oServerAliveInterval=30", "--quiet"],
      f"--command={shlex.join(remove)}; {shlex.join(run)}",
    ]

  def delete(self, given: argparse.Namespace) -> list[str]:
    """Returns the command that deletes it, whatever its state."""
    return [
      *[*_TPUS, "queued-resources", "delete", self.name],
      *[f"--zone={given.zone}", "--force", "--quiet"],
    ]


class Watch:
  """Brings all slices to their end, step by step."""

  def __init__(
    self, slices: Sequence[Slice], given: argparse.Namespace, logs: pathlib.Path
  ) -> None:
    """Starts nothing yet."""
    self._slices, self._given, self._logs = slices, given, logs

  def run(self) -> None:
    """Returns when all slices are done.

    Raises:
      Failed: one cannot be, or gcloud does not answer at the beginning.
    """
    self._logs.mkdir(parents=True, exist_ok=True)
    answered = False
    while not all(one.is_done for one in self._slices):
      # What has ended first: a preempted slice's work may have failed by that.
      codes = [one.code for one in self._slices]
      states = _states(self._given)
      if states is None and not answered:
        raise Failed("gcloud failed; see above.")
      if states is not None:  # Else it may answer the next time.
        answered = True
        for one, code in zip(self._slices, codes, strict=True):
          if not one.is_done:
            self._advance(one, states.get(one.name, ""), code)
      time.sleep(self._given.poll_seconds)

  def end(self) -> None:
    """Ends the connections; what runs on the workers is not ended by that."""
    for one in self._slices:
      self._disconnect(one)

  def _advance(self, one: Slice, state: str, code: int | None) -> None:
    if state in _WAITING:
      if state != one.waits:
        self._say(one, f"is {state}")
      one.waits = state
      return
    one.waits = ""
    if state == _READY:
      if one.process is None or code is not None:
        self._look_after(one, code)
    elif state in _GONE:
      self._say(one, f"is {state}: asks for another")
      self._disconnect(one)
      _gcloud(one.delete(self._given))
    elif not state:
      self._disconnect(one)
      one.failures = 0
      self._say(one, f"asks for {one.accelerator_type}")
      if _gcloud(one.create(self._given)):
        raise Failed(f"{one.name} could not be asked for; see above.")
    else:
      raise Failed(f"{one.name} is {state}.")

  def _look_after(self, one: Slice, code: int | None) -> None:
    """Starts what does not run on a slice, unless it is done."""
    if code == 0:
      one.is_done = True
      self._say(one, "is done")
      if not self._given.keep:
        _gcloud(one.delete(self._given))
      return
    if code not in (None, STOPPED_EXIT_CODE):
      one.failures += 1
      self._say(one, f"ended with exit code {code}; see {self._log(one)}")
      if one.failures > self._given.max_restarts:
        raise Failed(f"{one.name} failed {one.failures} times.")
    self._say(one, f"runs; its log is {self._log(one)}")
    with self._log(one).open("a") as log:
      one.process = subprocess.Popen(
        one.start(self._given), stdout=log, stderr=log, stdin=subprocess.DEVNULL
      )

  def _disconnect(self, one: Slice) -> None:
    if one.process:
      one.process.kill()
      one.process.wait()
      one.process = None

  def _log(self, one: Slice) -> pathlib.Path:
    return self._logs / f"{one.name}.log"

  def _say(self, one: Slice, what: str) -> None:
    print(f"{one.name} {what}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
  """Runs the job, or prints its commands; returns the exit code."""
  parser = _parser()
  given, job = parser.parse_job(argv)
  if job.builders and not given.builder_accelerator_type:
    parser.error("Give --builder_accelerator_type, of one host.")
  slices = _slices(job, given)
  if given.dry_run:
    return _show(slices, given)
  if given.delete:
    return max(_gcloud(one.delete(given)) for one in slices)
  logs = given.logs or (
    str(files.cached("logs", job.workdir)) if files.is_url(job.workdir) else ""
  )
  watch = Watch(slices, given, log_folder(job, logs))
  code = 0
  try:
    watch.run()
  except Failed as error:
    print(f"launch.tpu_vm: {error}", file=sys.stderr)
    code = 1
  except KeyboardInterrupt:
    print("The slices stay; the same command goes on.", file=sys.stderr)
    return 130
  finally:
    watch.end()
  for one in slices:
    if not (one.is_done or given.keep):
      _gcloud(one.delete(given))
  return code


def _parser() -> Parser:
  parser = Parser("launch.tpu_vm", __doc__ or "", python="python")
  parser.add_argument("--image", required=True, help="Of launch/Dockerfile.")
  parser.add_argument("--zone", required=True, help="Of Google Cloud.")
  parser.add_argument(
    "--accelerator_type", required=True, help="Of --hosts hosts: v5p-32, say."
  )
  parser.add_argument(
    "--builder_accelerator_type", help="Of one host: v5p-8, say."
  )
  parser.add_argument(
    "--runtime_version", required=True, help="Of the TPU software."
  )
  parser.add_argument(
    "--spot", action="store_true", help="Slices that may be taken away."
  )
  parser.add_argument(
    "--create",
    action="append",
    default=[],
    metavar="OPTION",
    help="Any other option of `gcloud compute tpus queued-resources create`, "
    "such as --create=--service-account=…; may be given several times.",
  )
  parser.add_argument(
    "--docker",
    action="append",
    default=[],
    metavar="OPTION",
    help="Any other option of `docker run`, such as --docker=--volume=/mnt:"
    "/data; may be given several times.",
  )
  parser.add_argument("--logs", default="", help="A folder of this machine.")
  parser.add_argument(
    "--poll_seconds", type=float, default=60.0, help="Between looks."
  )
  parser.add_argument(
    "--keep", action="store_true", help="Delete no slice at the end."
  )
  parser.add_argument(
    "--delete", action="store_true", help="Delete the slices, and do no more."
  )
  return parser


def _slices(job: Job, given: argparse.Namespace) -> list[Slice]:
  trainer = Slice(f"{job.name}-trainer", given.accelerator_type, job.trainer())
  return [
    trainer,
    *(
      Slice(
        f"{job.name}-builder-{number}",
        given.builder_accelerator_type,
        job.builder(),
      )
      for number in range(job.builders)
    ),
  ]


def _show(slices: Sequence[Slice], given: argparse.Namespace) -> int:
  steps = [[one.delete(given) for one in slices]]
  if not given.delete:
    lists = [_list(kind, given) for kind in ("queued-resources", "tpu-vm")]
    steps[:0] = [
      lists,
      [one.create(given) for one in slices],
      [one.start(given) for one in slices],
    ]
  for command in (command for step in steps for command in step):
    print(shlex.join(command))
  return 0


def _states(given: argparse.Namespace) -> dict[str, str] | None:
  """Returns the state of each slice that there is; None if gcloud failed.

  It is its node's where its queued resource is active.
  """
  found = []
  for kind in ("queued-resources", "tpu-vm"):
    done = subprocess.run(
      _list(kind, given), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    if done.returncode:
      return None
    listed = json.loads(done.stdout or b"[]")
    found.append({each["name"].rpartition("/")[2]: each for each in listed})
  queued, nodes = found
  states = {name: each["state"]["state"] for name, each in queued.items()}
  return {
    name: nodes.get(name, {"state": "PROVISIONING"})["state"]
    if state == "ACTIVE"
    else state
    for name, state in states.items()
  }


def _list(kind: str, given: argparse.Namespace) -> list[str]:
  return [*_TPUS, kind, "list", f"--zone={given.zone}", "--format=json"]


def _gcloud(command: Sequence[str]) -> int:
  return subprocess.run(command, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
