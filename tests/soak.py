# SPDX-License-Identifier: Apache-2.0
"""Runs whose processes are killed at random: `make soak SWAPS=50 SEED=0`.

    python -m tests.soak --swaps=50 --seed=0

Run follows run, under lockstep or async, with one builder or two, until as
many versions as asked have been published and as many swaps been made. All
the time a reader opens what is published. Prints what was wrong, if anything,
and as its last line `soak: publishes=N swaps=N kills=N failures=N`; the exit
code is 0 only without failures. The seed decides the runs and the kills'
moments, as far as the machine's own pace does not.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.tokenize import train_tokenizer
from realm_jax.index import store
from tests.conftest import tiny_documents
from tests.integration.jobs import (
  Jobs,
  Reader,
  content,
  kill,
  leaks,
  same_params,
  schedule,
)

NUM_STEPS = 48
KILLS = 8  # A run, at most.
_FLAGS = {
  "lockstep": (),
  # Without a limit the steps would be over before many versions have come.
  "async": (
    "--config.refresh.policy=async",
    "--config.refresh.max_staleness_steps=8",
  ),
}


class Soak:
  """Runs beside an undisturbed one, and what they add up to."""

  def __init__(self, folder: pathlib.Path, seed: int) -> None:
    """Makes the data, and the run that the others must equal."""
    texts = [f"{d.title} {d.text}" for d in tiny_documents()]
    tokenizer = train_tokenizer(texts, 400, folder / "tokenizer")
    self._corpus: PassageCorpus = build_corpus(
      tiny_documents(), tokenizer, folder / "corpus", max_pieces=48
    )
    self._folder, self._seed = folder, seed
    self.publishes = self.swaps = self.kills = self.failures = self._runs = 0
    started = time.monotonic()
    self._undisturbed = folder / "undisturbed"
    # The others read what this one compiles, and do not write there: none
    # can be killed while it does.
    with (
      Reader(self._undisturbed, self._corpus) as reader,
      self._jobs(self._undisturbed, "lockstep", writes_cache=True) as jobs,
    ):
      jobs.finish(jobs.trainer(), jobs.builder())
    self._opened = reader.opened
    self._pace = time.monotonic() - started  # Seconds.

  def _jobs(
    self, workdir: pathlib.Path, policy: str, *, writes_cache: bool = False
  ) -> Jobs:
    return Jobs(
      self._folder,
      workdir,
      f"--config.num_steps={NUM_STEPS}",
      *_FLAGS[policy],
      JAX_COMPILATION_CACHE_DIR=str(self._folder / "compiled"),
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0" if writes_cache else "1e9",
    )

  def run(self) -> None:
    """Makes one run, and adds it up."""
    self._runs += 1
    rng = np.random.default_rng((self._seed, self._runs))
    policy = str(rng.choice(list(_FLAGS)))
    workdir = self._folder / f"run_{self._runs}"
    with (
      Reader(workdir, self._corpus) as reader,
      self._jobs(workdir, policy) as jobs,
    ):
      kills, problems = self._disturb(jobs, rng)
    if not problems:
      problems = self._problems(workdir, policy, reader)
      self.swaps += len(schedule(workdir)) - 1  # The first is none.
    self.publishes += len(reader.opened)
    self.kills += kills
    self.failures += len(problems)
    print(f"run {self._runs}: {policy}, {kills} kills, {problems or 'sound'}")
    print(self.summary(), flush=True)
    if not problems:
      shutil.rmtree(workdir)

  def _disturb(
    self, jobs: Jobs, rng: np.random.Generator
  ) -> tuple[int, list[str]]:
    """Kills processes until there have been enough kills, or all is done.

    Returns:
      How many it killed; and what ended as it should not.
    """
    start = [jobs.trainer, jobs.builder, jobs.builder][: rng.integers(2, 4)]
    processes = [one() for one in start]
    kills = 0
    while kills < KILLS and processes[0].poll() is None:
      _wait(_moment(jobs, rng, self._pace), processes)
      victim = int(rng.integers(len(processes)))
      if processes[victim].poll() is None:
        kill(processes[victim])
        processes[victim] = start[victim]()
        kills += 1
      if any(process.poll() for process in processes):
        break
    try:
      jobs.finish(*processes)
    except (AssertionError, subprocess.TimeoutExpired) as error:
      return kills, [str(error)]
    return kills, []

  def _problems(
    self, workdir: pathlib.Path, policy: str, reader: Reader
  ) -> list[str]:
    """Says what is wrong with a run that has ended."""
    served = schedule(workdir)
    firsts = [first for first, _ in served]
    steps = [store.step_of(version) for _, version in served]
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    trained = [line["step"] for line in logged if "loss" in line]
    claims = {
      "first steps ascend": firsts == sorted(set(firsts)),
      "versions ascend": steps == sorted(set(steps)),
      "what served was intact": {v for _, v in served} <= set(reader.opened),
      "nothing was refused": not reader.refused,
      "none older after a newer": list(reader.opened) == sorted(reader.opened),
      "every step once": trained == list(range(1, NUM_STEPS + 1)),
    }
    if policy == "lockstep":
      there, truth = content(reader.opened), content(self._opened)
      claims |= {
        "the same schedule": served == schedule(self._undisturbed),
        "the same parameters": same_params(workdir, self._undisturbed),
        "the same versions": there.items() <= truth.items(),
      }
    left = leaks(workdir, self._corpus)
    left += [str(p) for p in psutil.Process().children(recursive=True)]
    broken = [
      f"not so: {claim}" for claim, holds in claims.items() if not holds
    ]
    refused = [f"{v}: {why}" for v, why in reader.refused.items()]
    return broken + refused + [f"left: {what}" for what in left]

  def summary(self) -> str:
    """Returns the last line."""
    return (
      f"soak: publishes={self.publishes} swaps={self.swaps} "
      f"kills={self.kills} failures={self.failures}"
    )


def _moment(jobs: Jobs, rng: np.random.Generator, pace: float):
  """Returns what to wait for before a kill.

  Either any moment, or one shortly after a checkpoint, a draft, a version or
  a step has appeared.
  """
  patterns = ["", "checkpoints/*", "index/0*", "index/0*/*.json", "metrics.*"]
  pattern = str(rng.choice(patterns))
  seconds = float(rng.uniform(0, pace / 4 if not pattern else pace / 50))
  deadline = time.monotonic() + pace / 4
  before = _looks(jobs.workdir, pattern)
  appeared: list[float] = []

  def over() -> bool:
    now = time.monotonic()
    if not appeared and (
      not pattern or now > deadline or _looks(jobs.workdir, pattern) != before
    ):
      appeared.append(now)
    return bool(appeared) and now > appeared[0] + seconds

  return over


def _looks(workdir: pathlib.Path, pattern: str) -> list[tuple[str, int]]:
  looks = []
  for path in sorted(workdir.glob(pattern or "nothing")):
    try:
      looks.append((str(path), path.stat().st_size))
    except FileNotFoundError:
      continue
  return looks


def _wait(over, processes: list[subprocess.Popen]) -> None:
  """Until it is over, or one of them ended."""
  while not over() and all(process.poll() is None for process in processes):
    time.sleep(0.002)


def main(argv: list[str]) -> int:
  """Returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--swaps", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--directory", default="", help="kept; else a new one")
  args = parser.parse_args(argv)
  folder = pathlib.Path(args.directory or tempfile.mkdtemp(prefix="soak-"))
  folder.mkdir(parents=True, exist_ok=True)
  soak = Soak(folder, args.seed)
  while min(soak.publishes, soak.swaps) < args.swaps and soak.failures < 10:
    soak.run()
  if not args.directory and not soak.failures:
    shutil.rmtree(folder)
  else:
    print(f"{folder} is kept")
  print(soak.summary())
  return 1 if soak.failures else 0


if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  sys.exit(main(sys.argv[1:]))
