# SPDX-License-Identifier: Apache-2.0
r"""Trains on a SLURM cluster: a job of trainers, and one of index builders.

    python -m launch.slurm --config=experiments/….py --workdir=/nfs/realm \
      --hosts=4 --gpus_per_node=8 --partition=gpu --time=24:00:00

submits both with sbatch; --hetjob makes them one heterogeneous job. Two minutes
before its time is up, or when it is preempted, a trainer saves and exits with
75, and its job puts itself back in the queue; so do the builders, until the
last index is built. Trainers that fail, as they do when they have lost one of
them, queue again --max_restarts times, and then take the builders with them.
Logs, one a trainer and one a builder, and the scripts are in <workdir>/logs.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib
import shlex
import subprocess
import sys

from launch.job import Job, Parser, count, log_folder
from realm_jax.train.stop import STOPPED_EXIT_CODE

_TRAINING_DONE = "TRAINING_DONE"  # Of realm_jax.checkpoints.
_NAMED = ("partition", "account", "time", "gpus_per_node", "cpus_per_task")
# Some time before the limit; SLURM may send it a minute earlier still.
_TRAINER_SIGNAL = "--signal=TERM@120"
_BUILDER_SIGNAL = "--signal=B:USR1@60"  # To the script; scancel sends others.
# The tasks are not killed when the first ends: each saves, and ends.
_SRUN = [
  *["srun", "--kill-on-bad-exit=0", "--wait=300", "--open-mode=append"],
]
_CPUS = '${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"}'

_HEAD = """\
#!/bin/bash
# Written by launch.slurm; the options are on the command line of sbatch.
"""

# One that lost a peer may start again: SLURM sees no failed node.
_TRAIN = """\
may_start_again() {{
  failures={logs}/$SLURM_JOB_NAME-$SLURM_JOB_ID.failures
  echo $code >> "$failures" && [ "$(wc -l < "$failures")" -le {max_restarts} ]
}}
nodes=${{SLURM_JOB_NODELIST_HET_GROUP_0:-$SLURM_JOB_NODELIST}}
REALM_HOSTS=$(scontrol show hostnames "$nodes" | paste -s -d , -)
export REALM_HOSTS
{srun}
code=$?
"""

_TRAINER_END = """\
if [ $code = {stopped} ] || {{ [ $code != 0 ] && may_start_again; }}; then
  scontrol requeue "$SLURM_JOB_ID"
elif [ $code != 0 ]; then
  scancel --user="$(id -un)" --name={builder}"$SLURM_JOB_ID"
fi
exit $code
"""

_BUILDER = """\
# Its argument is the job of the trainers.
before_the_time_limit() {{
  trainers=$(squeue --noheader --jobs="$1" 2>/dev/null)
  if [ -e {done} ] || [ -n "$trainers" ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  kill $! 2>/dev/null
  exit {stopped}
}}
trap 'before_the_time_limit "$1"' USR1
{srun} &
wait $!
"""

_HET_END = """\
if [ $code = 0 ]; then
  wait $builder
  exit $?
elif [ $code = {stopped} ] || may_start_again; then
  scontrol requeue "$SLURM_JOB_ID"
fi
kill $builder 2>/dev/null
exit $code
"""


@dataclasses.dataclass(frozen=True)
class Submission:
  """A script, and the command that submits it."""

  command: list[str]
  path: pathlib.Path
  text: str
  arguments: tuple[str, ...] = ()

  def show(self) -> str:
    """Prints what `submit` does; returns what stands for the job's number."""
    print(f"cat > {shlex.quote(str(self.path))} <<'END'\n{self.text}END")
    print(shlex.join(self._line()))
    return "TRAINER_JOB"

  def submit(self) -> str:
    """Returns the job's number.

    Raises:
      SystemExit: sbatch failed; with its exit code.
    """
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self.path.write_text(self.text, encoding="utf-8")
    done = subprocess.run(self._line(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
      raise SystemExit(done.returncode)
    number = done.stdout.strip().partition(";")[0]  # A cluster may follow.
    print(f"{self.path.stem}: job {number}, logs in {self.path.parent}")
    return number

  def _line(self) -> list[str]:
    return [*self.command, str(self.path), *self.arguments]


def main(argv: Sequence[str]) -> int:
  """Submits the jobs, or prints them; returns the exit code."""
  parser = _parser()
  given, job = parser.parse_job(argv)
  try:
    logs = log_folder(job, given.logs)
    if "%" in str(logs):
      raise ValueError(f"SLURM would replace the % in --logs={logs}.")
  except ValueError as error:
    parser.error(str(error))
  act = Submission.show if given.dry_run else Submission.submit
  if given.hetjob and job.builders:
    act(_het(job, given, logs))
    return 0
  number = act(_trainer(job, given, logs))
  if job.builders:
    act(_builder(job, given, logs, number))
  return 0


def _parser() -> Parser:
  parser = Parser("launch.slurm", __doc__ or "", python=sys.executable)
  for name, what in (
    ("partition", "Of both jobs, as --account and --time."),
    ("account", "That is charged."),
    ("time", "Limit of each job, after which it queues again."),
  ):
    parser.add_argument(f"--{name}", help=what)
  parser.add_argument("--gpus_per_node", type=count(1), help="Of each host.")
  parser.add_argument(
    "--cpus_per_task", type=count(1), help="Of each host; SLURM gives one."
  )
  parser.add_argument(
    "--hetjob",
    action="store_true",
    help="One heterogeneous job, which starts when there is room for all.",
  )
  parser.add_argument("--logs", default="", help="By default <workdir>/logs.")
  parser.add_argument(
    "--sbatch",
    action="append",
    default=[],
    metavar="OPTION",
    help="Any other option of sbatch, such as --sbatch=--qos=high; may be "
    "given several times.",
  )
  parser.add_argument(
    "--builder_sbatch",
    action="append",
    default=[],
    metavar="OPTION",
    help="One for the builders alone, such as --builder_sbatch=--partition=cpu",
  )
  return parser


def _trainer(
  job: Job, given: argparse.Namespace, logs: pathlib.Path
) -> Submission:
  name = f"{job.name}-trainer"
  end = _TRAINER_END.format(
    stopped=STOPPED_EXIT_CODE, builder=_builder_name(job)
  )
  return Submission(
    [
      *["sbatch", "--parsable"],
      *_options(given, name, job.hosts, logs / "%x-%j.log"),
      _TRAINER_SIGNAL,
    ],
    logs / "trainer.sh",
    _HEAD + _train(job, given, logs / "%x-%j-%t.log") + end,
  )


def _builder(
  job: Job, given: argparse.Namespace, logs: pathlib.Path, trainer: str
) -> Submission:
  # The last index is still to be built when there are no trainers any more.
  done = shlex.quote(f"{job.workdir}/{_TRAINING_DONE}")
  # The trainers cancel the builders by a name that no other run's have.
  name = f"{_builder_name(job)}{trainer}"
  return Submission(
    [
      *["sbatch", "--parsable"],
      *_options(given, name, 1, logs / "%x-%A_%a.log"),
      *given.builder_sbatch,
      *[f"--array=1-{job.builders}", f"--dependency=after:{trainer}"],
      _BUILDER_SIGNAL,
    ],
    logs / "builder.sh",
    _HEAD
    + _BUILDER.format(
      stopped=STOPPED_EXIT_CODE, done=done, srun=_srun([], job.builder())
    ),
    (trainer,),
  )


def _het(job: Job, given: argparse.Namespace, logs: pathlib.Path) -> Submission:
  output = logs / "%x-%j.log"
  builder = _srun(
    ["--het-group=1", f"--output={logs / '%x-%j-builder-%t.log'}"],
    job.builder(),
  )
  train = _train(job, given, logs / "%x-%j-trainer-%t.log", "--het-group=0")
  return Submission(
    [
      *["sbatch", "--parsable"],
      *_options(given, job.name, job.hosts, output),
      _TRAINER_SIGNAL,
      ":",
      *_options(given, job.name, job.builders, output),
      *given.builder_sbatch,
    ],
    logs / "hetjob.sh",
    f"{_HEAD}{builder} &\nbuilder=$!\n{train}"
    + _HET_END.format(stopped=STOPPED_EXIT_CODE),
  )


def _options(
  given: argparse.Namespace, name: str, nodes: int, output: pathlib.Path
) -> list[str]:
  named = {each: getattr(given, each) for each in _NAMED}
  return [
    f"--job-name={name}",
    f"--nodes={nodes}",
    "--ntasks-per-node=1",
    *(f"--{k.replace('_', '-')}={v}" for k, v in named.items() if v),
    "--requeue",
    *[f"--output={output}", "--open-mode=append"],
    *given.sbatch,
  ]


def _train(
  job: Job, given: argparse.Namespace, log: pathlib.Path, *options: str
) -> str:
  return _TRAIN.format(
    logs=shlex.quote(str(log.parent)),
    max_restarts=given.max_restarts,
    srun=_srun([*options, f"--output={log}"], job.trainer()),
  )


def _srun(options: Sequence[str], command: Sequence[str]) -> str:
  """Returns a line of a script; all words are quoted."""
  return f"{shlex.join([*_SRUN, *options])} {_CPUS} {shlex.join(command)}"


def _builder_name(job: Job) -> str:
  return f"{job.name}-builder-"  # The trainers' job follows.


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
