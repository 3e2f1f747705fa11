# SPDX-License-Identifier: Apache-2.0
"""Trains on this machine, with index builders beside the trainers.

    python -m launch.local --config=experiments/….py --workdir=runs/realm

takes the flags of `realm train`, and some of its own: `--trainers=n` starts n
processes that train the run together, on the CPU; `--builders=n` starts so
many builders that share the work. What searches no index (ict, dpr, mlm, BM25,
closed book) gets no builder. Trainer and builders share the machine's GPUs;
`--builder_gpus=n` gives the last n of them to the builders alone.

The first trainer has the terminal; the others write to
`<workdir>/trainer-1.log` and so on, builders to `<workdir>/builder.log`,
`builder-1.log` and so on; to a folder of this machine where the workdir is a
URL, as a store cannot append lines. Exits as the trainers do. When one of them
fails the others are ended, for they would wait for it; when a builder fails,
the trainers are asked to save and stop, and the exit code is 1.
"""

from collections.abc import Mapping, Sequence
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types

from absl import flags

from launch import gpus
from realm_jax import config, files
from realm_jax.commands.command import (
  config_flag,
  parse_flags,
  workdir_flag,
)
from realm_jax.commands.training import trainer_flags
from realm_jax.train.stop import STOPPED_EXIT_CODE

FLAGS = flags.FLAGS

POLL_SECONDS = 0.2
# For trainers to say what is wrong, if it is wrong for all of them.
GRACE_SECONDS = 5.0
LOG_LINES = 20  # Of a failed process, shown to the user.


def main(argv: list[str]) -> int:
  """Runs trainers and builders until all are done; returns the exit code."""
  others = set(FLAGS)
  own = flags.FlagValues()
  for name in ("trainers", "builders"):
    flags.DEFINE_integer(
      name, 1, "How many there are.", lower_bound=1, flag_values=own
    )
  flags.DEFINE_integer(
    "builder_gpus",
    0,
    "How many of the GPUs are the builders' alone; 0: all use all.",
    lower_bound=0,
    flag_values=own,
  )
  config_flag("The experiment's file.")
  workdir_flag()
  trainer_flags()
  FLAGS.append_flag_values(own)
  parse_flags(["launch.local", *argv], str(__doc__), set(FLAGS) - others)
  theirs = own(["launch.local", *argv], known_only=True)[1:]
  try:
    run = config.parse(FLAGS.config)
    trainer_env, builder_envs = gpus.shares(
      FLAGS.builder_gpus, FLAGS.builders if run.searches else 0
    )
  except (ValueError, OSError) as error:
    print(f"launch.local: {error}", file=sys.stderr)
    return 1
  logs = _log_folder(FLAGS.workdir)
  logs.mkdir(parents=True, exist_ok=True)
  trainers = _start_trainers(theirs, logs, FLAGS.trainers, trainer_env)
  asked = _forward_signals(trainers)
  builders = [
    _Process(
      "The index builder",
      ["build-index", f"--workdir={FLAGS.workdir}", "--watch"],
      log=_log_path(logs, "builder", number),
      environment=environment,
    )
    for number, environment in enumerate(builder_envs)
  ]
  try:
    return _supervise(trainers, builders, asked)
  finally:
    for process in (*trainers, *builders):
      process.end()


def _log_folder(workdir: str) -> pathlib.Path:
  if not files.is_url(workdir):
    return pathlib.Path(workdir)
  folder = files.cached("logs", workdir)
  print(f"Logs are in {folder}.", file=sys.stderr)
  return folder


class _Process:
  """One `realm` process; without a log it has the terminal."""

  def __init__(
    self,
    title: str,
    arguments: Sequence[str],
    *,
    log: pathlib.Path | None = None,
    environment: Mapping[str, str] | None = None,
  ) -> None:
    self.title, self._log = title, log
    self._arguments, self._environment = arguments, environment or {}
    self._popen = self._start()

  @property
  def code(self) -> int | None:
    """Its exit code; None while it runs."""
    return self._popen.poll()

  def restart(self) -> None:
    """Starts it again."""
    self._popen = self._start()

  def ask_to_stop(self) -> None:
    """A trainer saves, and ends when all trainers have."""
    self._popen.terminate()

  def wait(self, seconds: float) -> None:
    """Returns when it has ended, or when so much time has passed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._popen.wait(seconds)

  def end(self) -> None:
    """Kills it, if it has not ended: any process may be killed."""
    if self.code is None:
      self._popen.kill()
      self._popen.wait()

  def report(self) -> None:
    """Says how it ended, and with what last words."""
    told = [f"{self.title} ended with exit code {self.code}."]
    if self._log is not None:
      told[0] += f" The end of {self._log}:"
      told += self._log.read_text(encoding="utf-8").splitlines()[-LOG_LINES:]
    print(*told, sep="\n  ", file=sys.stderr)

  def _start(self) -> subprocess.Popen:
    # A terminal sends Ctrl-C to all. Only the launcher may act on it, as a
    # builder has to outlive the trainers; what is ignored here is ignored by
    # the child, too.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = None if self._log is None else self._log.open("a")
    try:
      return subprocess.Popen(
        [sys.executable, "-m", "realm_jax.cli", *self._arguments],
        stdout=output,
        stderr=output,
        env={**os.environ, **self._environment},
        close_fds=False,  # Who started us may know by one who still works.
      )
    finally:
      signal.signal(signal.SIGINT, handler)
      if output is not None:
        output.close()


def _start_trainers(
  flags: Sequence[str],
  logs: pathlib.Path,
  count: int,
  environment: Mapping[str, str],
) -> list[_Process]:
  if count == 1:
    return [_Process("The trainer", ["train", *flags], environment=environment)]
  group = [
    f"--coordinator=127.0.0.1:{_free_port()}",
    f"--num_processes={count}",
  ]
  return [
    _Process(
      f"Trainer {number}",
      ["train", *flags, *group, f"--process_id={number}"],
      log=_log_path(logs, "trainer", number) if number else None,
      environment={"JAX_PLATFORMS": "cpu"},
    )
    for number in range(count)
  ]


def _log_path(logs: pathlib.Path, name: str, number: int) -> pathlib.Path:
  return logs / (f"{name}-{number}.log" if number else f"{name}.log")


def _free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]


def _forward_signals(trainers: Sequence[_Process]) -> threading.Event:
  """Ctrl-C and SIGTERM ask the trainers to save and stop, and set the event."""
  asked = threading.Event()

  def forward(signum: int, frame: types.FrameType | None) -> None:
    del signum, frame
    asked.set()
    for trainer in trainers:
      trainer.ask_to_stop()

  signal.signal(signal.SIGTERM, forward)
  signal.signal(signal.SIGINT, forward)
  return asked


def _supervise(
  trainers: Sequence[_Process],
  builders: Sequence[_Process],
  asked: threading.Event,
) -> int:
  while any(trainer.code is None for trainer in trainers):
    if _first_failed(trainers):
      for trainer in trainers:
        trainer.wait(GRACE_SECONDS)
      break
    for builder in builders:
      if builder.code == 0:
        # It saw the end of an earlier run, which this one continues.
        builder.restart()
    if failed := _first_failed(builders):
      failed.report()
      for trainer in trainers:
        trainer.ask_to_stop()
      _supervise(trainers, (), asked)
      return 1
    time.sleep(POLL_SECONDS)
  if failed := _first_failed(trainers):
    failed.report()
    return _as_exit_code(failed)
  if any(trainer.code for trainer in trainers):
    return STOPPED_EXIT_CODE
  while any(builder.code is None for builder in builders):
    if asked.is_set():
      print(
        "Stopped on request: training is done, its last index is not. The same "
        "command goes on.",
        file=sys.stderr,
      )
      return STOPPED_EXIT_CODE
    time.sleep(POLL_SECONDS)
  if failed := _first_failed(builders):
    failed.report()
    return 1
  return 0


def _first_failed(processes: Sequence[_Process]) -> _Process | None:
  # Rather one that was killed than one that noticed it.
  fine = (None, 0, STOPPED_EXIT_CODE)
  failed = [process for process in processes if process.code not in fine]
  return min(failed, key=lambda process: process.code or 0, default=None)


def _as_exit_code(process: _Process) -> int:
  code = process.code or 0
  return code if code >= 0 else 128 - code  # Killed by a signal: as in a shell.


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
