# SPDX-License-Identifier: Apache-2.0
"""Trains on this machine, with an index builder beside the trainer.

    python -m launch.local --config=experiments/….py --workdir=runs/realm

takes the flags of `realm train`. Stages that search nothing (ict, mlm) get no
builder. The trainer has the terminal; the builder writes to
`<workdir>/builder.log`, or to a folder of this machine where the workdir is a
URL: a store cannot append lines. Exits as the trainer does; when the builder
fails, the trainer is asked to save and stop, and the exit code is 1.
"""

import pathlib
import signal
import subprocess
import sys
import time
import types

from absl import flags
from ml_collections import config_flags

from realm_jax import config, files

FLAGS = flags.FLAGS

POLL_SECONDS = 0.2
LOG_FILE = "builder.log"
LOG_LINES = 20  # Of a failed builder, shown to the user.


def main(argv: list[str]) -> int:
  """Runs trainer and builder until both are done; returns the exit code."""
  config_flags.DEFINE_config_file("config", None, "The experiment's file.")
  flags.DEFINE_string("workdir", None, "The run's directory.")
  flags.DEFINE_list("may_differ", [], "As of `realm train`.")
  flags.mark_flags_as_required(["config", "workdir"])
  FLAGS(["launch.local", *argv])
  logs = _log_folder(FLAGS.workdir)
  logs.mkdir(parents=True, exist_ok=True)
  trainer = _start("train", argv)
  _forward_signals(trainer)
  if config.parse(FLAGS.config).stage in ("ict", "mlm"):
    return trainer.wait()  # Nothing is searched: no index.
  return _supervise(trainer, FLAGS.workdir, logs / LOG_FILE)


def _log_folder(workdir: str) -> pathlib.Path:
  if not files.is_url(workdir):
    return pathlib.Path(workdir)
  folder = files.cached("logs", workdir)
  print(f"The index builder's log is in {folder}.", file=sys.stderr)
  return folder


def _start(
  command: str, flags: list[str], *outputs: object
) -> subprocess.Popen:
  stdout, stderr = outputs or (None, None)
  # A terminal sends Ctrl-C to all three. Only this process may act on it, as
  # the builder has to outlive the trainer; what is ignored here is ignored by
  # the child, too.
  handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    return subprocess.Popen(
      [sys.executable, "-m", "realm_jax.cli", command, *flags],
      stdout=stdout,  # type: ignore[call-overload]
      stderr=stderr,
    )
  finally:
    signal.signal(signal.SIGINT, handler)


def _forward_signals(trainer: subprocess.Popen) -> None:
  """Ctrl-C and SIGTERM ask the trainer to save and stop."""

  def forward(signum: int, frame: types.FrameType | None) -> None:
    del signum, frame
    trainer.terminate()

  signal.signal(signal.SIGTERM, forward)
  signal.signal(signal.SIGINT, forward)


def _start_builder(workdir: str, log_path: pathlib.Path) -> subprocess.Popen:
  with log_path.open("a", encoding="utf-8") as log:
    return _start("build-index", [f"--workdir={workdir}", "--watch"], log, log)


def _supervise(
  trainer: subprocess.Popen, workdir: str, log_path: pathlib.Path
) -> int:
  builder = _start_builder(workdir, log_path)
  try:
    while trainer.poll() is None:
      if builder.poll() == 0:
        # It saw the end of an earlier run, which this one continues.
        builder = _start_builder(workdir, log_path)
      elif builder.poll():
        _report_builder(builder.returncode, log_path)
        trainer.terminate()
        trainer.wait()
        return 1
      time.sleep(POLL_SECONDS)
    if trainer.returncode:
      print(
        f"The trainer ended with exit code {trainer.returncode}.",
        file=sys.stderr,
      )
      return trainer.returncode
    if builder.wait():
      _report_builder(builder.returncode, log_path)
      return 1
    return 0
  finally:
    for process in (trainer, builder):
      if process.poll() is None:
        process.terminate()
        process.wait()


def _report_builder(code: int, log_path: pathlib.Path) -> None:
  tail = log_path.read_text(encoding="utf-8").splitlines()[-LOG_LINES:]
  print(
    f"The index builder ended with exit code {code}. The end of {log_path}:",
    *tail,
    sep="\n  ",
    file=sys.stderr,
  )


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
