# SPDX-License-Identifier: Apache-2.0
"""Trainers and builders as processes, and a reader that watches them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from etils import epath
import jax
import numpy as np

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.index import retention, store
from realm_jax.index.manifest import MANIFEST, Manifest

CONFIG = pathlib.Path(__file__).with_name("tiny_run.py")
ROOT = pathlib.Path(__file__).parents[2]
PATIENCE_SECONDS = 600.0
# Few and short rows: two shapes to compile for. Every version has ScaNN's files
# and several shards, and soon another follows.
FLAGS = (
  "--config.batch_size=2",
  "--config.lengths.passage=24",
  "--config.lengths.joint=32",
  "--config.num_steps=16",
  "--config.retrieval.num_candidates=2",
  "--config.retrieval.backend=scann",
  "--config.refresh.every_steps=4",
  "--config.refresh.lag_steps=2",
  "--config.refresh.keep_versions=2",
  "--config.refresh.shard_passages=20",
)


def write_data(
  folder: pathlib.Path, tokenizer: Tokenizer, corpus: PassageCorpus
) -> None:
  """Puts what `tiny_run.py` reads in a folder."""
  tokenizer.save(folder / "tokenizer")
  shutil.copytree(corpus.directory, folder / "corpus")


def write_questions(folder: pathlib.Path, corpus: PassageCorpus) -> None:
  """Puts there what `tiny_run.py` fine-tunes on."""
  with (folder / "questions.jsonl").open("w") as file:
    for row in range(40):
      passage = corpus.passage(row)
      answer = passage.text.split()[5].strip(".")
      question = f"What is the capital of {passage.title}?"
      line = {"question": question, "answers": [answer]}
      file.write(json.dumps(line) + "\n")


class Jobs:
  """The processes of one run; leaving kills those that still live."""

  def __init__(
    self,
    data: pathlib.Path,
    workdir: pathlib.Path,
    *flags: str,
    **environment: str,
  ) -> None:
    """Starts nothing.

    Args:
      data: holds `tokenizer` and `corpus`.
      workdir: of the run.
      flags: of the trainer, beyond FLAGS.
      environment: of all processes, beyond ours.
    """
    self.workdir = workdir
    self.log = workdir.with_suffix(".log")  # Of all processes.
    self._trainer_flags = [
      f"--config={CONFIG}:realm,{data}",
      f"--workdir={workdir}",
      *FLAGS,
      *flags,
    ]
    self._environment = os.environ | environment
    self._started: list[subprocess.Popen] = []

  def __enter__(self) -> "Jobs":
    return self

  def __exit__(self, *_: object) -> None:
    for process in self._started:
      kill(process)

  def trainer(self, fault: str = "") -> subprocess.Popen:
    return self._start(fault, "train", *self._trainer_flags)

  def builder(self, fault: str = "") -> subprocess.Popen:
    return self._start(
      fault, "build-index", f"--workdir={self.workdir}", "--watch"
    )

  def _start(self, fault: str, *command: str) -> subprocess.Popen:
    module = ["tests.faulty", fault] if fault else ["realm_jax.cli"]
    with self.log.open("a") as log:
      process = subprocess.Popen(
        [sys.executable, "-m", *module, *command],
        cwd=ROOT,
        env=self._environment,
        stdout=subprocess.PIPE,  # Only a fault says anything there.
        stderr=log,
        text=True,
      )
    self._started.append(process)
    return process

  def finish(self, *processes: subprocess.Popen, code: int = 0) -> None:
    """Waits until processes end, and checks how."""
    for process in processes:
      found = process.wait(PATIENCE_SECONDS)
      assert found == code, f"exit code {found}\n{self._tail()}"

  def wait_for(self, condition, *processes: subprocess.Popen) -> None:
    """Waits for something that these processes bring about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
      ended = [process.poll() for process in processes]
      problem = f"exit codes {ended}\n{self._tail()}"
      assert not any(ended) and time.monotonic() < deadline, problem
      time.sleep(0.02)

  def wait_for_stop(self, process: subprocess.Popen) -> None:
    """Waits until a process has come to its fault."""
    said = process.stdout.readline()
    assert said == "stopped\n", self._tail()

  def _tail(self) -> str:
    """Returns what was said last."""
    return "\n".join(self.log.read_text().splitlines()[-12:])

  def published(self, step: int) -> bool:
    return step in map(store.step_of, store.list_versions(self.workdir))

  def saved(self, step: int) -> bool:
    return step in checkpoints.steps(self.workdir)


def kill(process: subprocess.Popen) -> None:
  process.kill()
  process.wait()
  process.stdout.close()


class Reader:
  """Opens every version as soon as it is published, checksums and all.

  A version that is pruned meanwhile is none of its business; any other that
  does not open is in `refused`.
  """

  def __init__(self, workdir: pathlib.Path, corpus: PassageCorpus) -> None:
    """Starts nothing; use it as a context manager.

    Args:
      workdir: whose versions are read; it may not be there yet.
      corpus: of the run.
    """
    self.opened: dict[str, Manifest] = {}  # In the order of opening.
    self.refused: dict[str, str] = {}  # Version -> why.
    self._workdir, self._corpus = workdir, corpus
    self._error: BaseException | None = None
    self._closing = threading.Event()
    self._thread = threading.Thread(target=self._read, name="reader")

  def __enter__(self) -> "Reader":
    self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._closing.set()
    self._thread.join()
    # A thread of its own ends our leases.
    deadline = time.monotonic() + 10
    leases = self._workdir / "index" / "readers"
    while list(leases.glob("*/*")) and time.monotonic() < deadline:
      time.sleep(0.02)
    if self._error:
      raise self._error

  def _read(self) -> None:
    try:
      while not self._closing.wait(0.05):
        if (self._workdir / workdirs.CONFIG_FILE).exists():
          self._look(workdirs.load(self._workdir))
    except BaseException as error:  # Raised again where it is left.
      self._error = error

  def _look(self, run: RunConfig) -> None:
    for version in store.list_versions(self._workdir, self._corpus):
      text = self._manifest_text(version)
      try:
        manifest = Manifest.read(store.index_folder(self._workdir) / version)
        if self.opened.get(version) != manifest:
          store.open_version(self._workdir, version, run, self._corpus)
          self.opened[version] = manifest
      except (FileNotFoundError, ValueError) as error:
        if text and text == self._manifest_text(version):
          self.refused[version] = str(error)

  def _manifest_text(self, version: str) -> str:
    path = store.index_folder(self._workdir) / version / MANIFEST
    try:
      return path.read_text()
    except FileNotFoundError:
      return ""


def content(versions: dict[str, Manifest]) -> dict[str, tuple]:
  """What versions were made with, and their vectors' checksums."""
  found = {}
  for version, manifest in versions.items():
    sums = {file.path: file.sha256 for file in manifest.files}
    vectors = [sums[shard] for shard in manifest.shards]
    found[version] = (manifest.embedder_hash, vectors)
  return found


def final_params(workdir: epath.PathLike) -> dict[str, object]:
  """The parameters that a run ended with."""
  step = checkpoints.newest_step(workdir)
  fine_tuned = workdirs.load(workdir).stage == "openqa"
  return {
    name: checkpoints.restore_params(workdir, step, name)
    for name in ("retriever", "reader" if fine_tuned else "encoder")
  }


def schedule(workdir: epath.PathLike) -> list[list]:
  """[first step, version] of a run that has ended."""
  step = checkpoints.newest_step(workdir)
  return checkpoints.metadata(workdir, step)["index_versions"]


def same_params(workdir: epath.PathLike, other: epath.PathLike) -> bool:
  """Whether two runs ended with bit-equal parameters."""
  pair = (final_params(workdir), final_params(other))
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, *pair)))


def leaks(workdir: pathlib.Path, corpus: PassageCorpus) -> list[str]:
  """What is in a finished run's workdir and should not be."""
  run = workdirs.load(workdir)
  expected = {
    workdirs.CONFIG_FILE,
    checkpoints.TRAINING_DONE,
    "checkpoints",
    "index",
    "metrics.jsonl",
  }
  left = [
    path
    for path in workdir.iterdir()
    if path.name not in expected and not path.name.startswith("events.out.")
  ]
  saved = {str(step) for step in checkpoints.steps(workdir)}
  left += [
    p for p in (workdir / "checkpoints").iterdir() if p.name not in saved
  ]
  versions = store.list_versions(workdir)
  needed = retention.needed_by_checkpoints(workdir)
  ours = store.of_corpus(versions, corpus.fingerprint)
  kept = {*ours[-run.refresh.keep_versions :], *(needed or ())}
  for path in (workdir / "index").iterdir():
    if path.name == "readers":
      left += path.glob("*/*")
      left += [each for each in path.iterdir() if each.name not in versions]
    elif path.name not in versions or path.name in {*ours} - kept:
      left.append(path)
    else:
      left += _strangers(path)
  return [str(path.relative_to(workdir)) for path in left]


def _strangers(directory: pathlib.Path) -> list[pathlib.Path]:
  manifest = Manifest.read(directory)
  told = {directory / file.path for file in manifest.files}
  told |= {parent for path in told for parent in path.parents}
  told.add(directory / MANIFEST)
  return [path for path in directory.rglob("*") if path not in told]
