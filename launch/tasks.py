# SPDX-License-Identifier: Apache-2.0
"""Commands that are run again, after a kill too, until they have succeeded.

Beside what a command makes lies a record: what was asked for, how long it has
taken, and whether it is done.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import sys
import time
from typing import Any

from etils import epath

from launch.processes import Processes, realm, train
from realm_jax import checksums, config, files
from realm_jax.config import RunConfig
from realm_jax.eval.predictions import figures_path
from realm_jax.workdir import CONFIG_FILE

_RECORD_SECONDS = 5.0  # What a kill may take from a record's time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """One command, and the record of it."""

  command: Sequence[str]
  what: dict[str, Any]  # Of JSON's types: what it depends on.
  record: pathlib.Path
  made: pathlib.Path  # Who removes this wants it made again.

  @property
  def seconds(self) -> float:
    """How long it has taken so far."""
    return self._read()["seconds"]

  @property
  def fingerprint(self) -> str:
    """Of how it was done: another one, once it has been done again."""
    return checksums.sha256_of(self.record)

  @property
  def is_done(self) -> bool:
    """Whether the command has succeeded."""
    return self._read()["done"] and self.made.exists()

  def run(self, held: int) -> None:
    """Runs the command if it is not done.

    Args:
      held: an open file that the command's processes hold, too; see `alone`.

    Raises:
      SystemExit: it failed, or was stopped; with its exit code.
    """
    if self.is_done:
      return
    self.record.parent.mkdir(parents=True, exist_ok=True)
    before, began = self.seconds, time.monotonic()
    written = -_RECORD_SECONDS

    def write(done: bool = False) -> None:
      nonlocal written
      passed = time.monotonic() - began
      if done or passed >= written + _RECORD_SECONDS:
        written = passed
        record = {"what": self.what, "seconds": before + passed, "done": done}
        files.write_whole(self.record, json.dumps(record, indent=2))

    write()
    Processes(pass_fds=(held,), tick=write).together([self.command])
    write(done=True)

  def _read(self) -> dict[str, Any]:
    record = _read(self.record)
    if record and record["what"] == self.what:
      return record
    return {"seconds": 0.0, "done": False}


def training(
  run: RunConfig, workdir: pathlib.Path, record: pathlib.Path | None = None
) -> Task:
  """Returns the task that trains a stage, with a builder if it needs one.

  Args:
    run: the config.
    workdir: of the stage.
    record: of the task; by default `<workdir>.json`.

  Raises:
    ValueError: another config was trained there; names what differs.
  """
  record = record or workdir.with_name(f"{workdir.name}.json")
  made = workdir / CONFIG_FILE
  if (found := _read(record)) and made.exists():
    changed = config.differences(config.parse(found["what"]), run)
    if changed:
      raise ValueError(
        f"{workdir} was trained with another config "
        f"({_listed(changed)}). Remove it with all that started from it, or "
        "use another directory."
      )
  return Task(
    command=train(
      config=f"{pathlib.Path(__file__).with_name('recorded.py')}:{record}",
      workdir=workdir,
    ),
    what=json.loads(config.dumps(run)),
    record=record,
    made=made,
  )


def indexing(workdir: pathlib.Path) -> Task:
  """Returns the task that indexes a stage which trained without an index."""
  command = realm("build-index", workdir=workdir)
  return Task(
    command=command,
    what={"command": command[1:]},  # Whichever Python runs it.
    record=workdir.with_name(f"{workdir.name}.index.json"),
    made=workdir / "index",
  )


def evaluating(
  workdir: pathlib.Path,
  trained: Task,
  data: Mapping[str, str],
  predictions: pathlib.Path,
  flags: Sequence[str] = (),
) -> Task:
  """Returns the task that evaluates a stage; it makes the file of figures.

  Args:
    workdir: of the stage.
    trained: the task that did; who trains it anew, evaluates it anew.
    data: {"questions": path} or {"texts": path}; so does who changes the file.
    predictions: file to write.
    flags: further ones.
  """
  command = realm("evaluate", workdir=workdir, **data, predictions=predictions)
  command += flags
  return Task(
    command=command,
    what={
      "command": command[1:],  # Whichever Python runs it.
      "trained": trained.fingerprint,
      "data": {
        path: checksums.sha256_of(path)
        for path in data.values()
        if os.path.isfile(path)  # And no name of a dataset.
      },
    },
    record=predictions.with_suffix(".json"),
    made=pathlib.Path(figures_path(epath.Path(predictions))),
  )


@contextlib.contextmanager
def alone(directory: pathlib.Path) -> Iterator[int]:
  """Waits until no other process works in a directory, and keeps others out.

  Yields:
    An open file. The processes that hold it, too, count as working in the
    directory when this one is killed: two trainers of a workdir never meet.
  """
  directory.mkdir(parents=True, exist_ok=True)
  with (directory / ".lock").open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(
        f"Waiting for what still works in {directory} …",
        file=sys.stderr,
        flush=True,
      )
      fcntl.flock(file, fcntl.LOCK_EX)
    yield file.fileno()


def _read(record: pathlib.Path) -> dict[str, Any] | None:
  try:
    return json.loads(record.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return None


def _listed(changed: dict[str, Any]) -> str:
  return "; ".join(
    f"{key}: {old!r} there, {new!r} asked"
    for key, (old, new) in changed.items()
  )
