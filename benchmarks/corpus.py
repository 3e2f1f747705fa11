# SPDX-License-Identifier: Apache-2.0
"""Preparing a corpus: passages a second, and what memory it takes.

  python -m benchmarks.corpus --passages=1000000
  python -m benchmarks.corpus --source=enwiki.xml.bz2 --tokenizer=my/tokenizer

Runs `realm prepare-corpus` on made-up documents of a quarter of the passages,
and of all of them, and on through the line of both the memory is estimated
that Wikipedia's 13,353,718 passages take. Speed is given in seconds of the
clock and of all processes' CPU time, which other work beside it changes less.
Memory is what belongs to a process alone (USS).
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags
import numpy as np
import psutil

from realm_jax.data.tokenize import train_tokenizer

_PASSAGES = flags.DEFINE_integer("passages", 1_000_000, "Made-up passages.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.")
_SOURCE = flags.DEFINE_string("source", "", "A source to prepare instead.")
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "Of --source.")

_WIKIPEDIA = 13_353_718  # ORQA's blocks.
_SENTENCE_WORDS, _DOCUMENT_SENTENCES = 18, 60
_DOCUMENT_PASSAGES = 5  # Of so many sentences, about.
_SAMPLE_SECONDS = 0.2


def make_words() -> list[str]:
  """Returns words that most of a vocabulary's pieces are whole."""
  parts = ["ba", "ko", "ri", "mu", "te", "sa", "lo", "ni", "dur", "gel"]
  return [a + b + c for a in parts for b in parts for c in parts]


def write_source(path: pathlib.Path, num_documents: int) -> None:
  """Writes documents of random sentences as JSONL."""
  rng, words = np.random.default_rng(0), np.array(make_words())
  shape = (_DOCUMENT_SENTENCES, _SENTENCE_WORDS)
  with path.open("w") as file:
    for number in range(num_documents):
      drawn = words[rng.integers(len(words), size=shape)]
      text = ". ".join(" ".join(row).capitalize() for row in drawn)
      line = {"title": f"Title {number}", "text": text, "uid": str(number)}
      file.write(json.dumps(line) + "\n")


class _Watch:
  """What a process and its children take, sampled."""

  def __init__(self, pid: int) -> None:
    self._process = psutil.Process(pid)
    self.peak_bytes = 0  # Of the process itself.
    self.peak_worker_bytes = 0  # Of the largest child.
    self._cpu: dict[int, float] = {}

  @property
  def cpu_seconds(self) -> float:
    return sum(self._cpu.values())

  def sample(self) -> None:
    # A process may end while it is looked at.
    with contextlib.suppress(psutil.NoSuchProcess):
      self.peak_bytes = max(self.peak_bytes, self._one(self._process))
      for child in self._process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
          found = self._one(child)
          self.peak_worker_bytes = max(self.peak_worker_bytes, found)

  def _one(self, process: psutil.Process) -> int:
    times = process.cpu_times()
    self._cpu[process.pid] = times.user + times.system
    return int(process.memory_full_info().uss)


def prepare(
  source: str, tokenizer: str, output: pathlib.Path, workers: int
) -> dict[str, Any]:
  """Runs `realm prepare-corpus`; returns what it took."""
  words = [sys.executable, "-m", "realm_jax.cli", "prepare-corpus"]
  words += [f"--source={source}", f"--tokenizer={tokenizer}"]
  words += [f"--output={output}", f"--workers={workers}"]
  started = time.perf_counter()
  process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
  watch = _Watch(process.pid)
  while process.poll() is None:
    watch.sample()
    time.sleep(_SAMPLE_SECONDS)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, words)
  seconds = time.perf_counter() - started
  made = json.loads((output / "MANIFEST.json").read_text())
  size = sum(path.stat().st_size for path in output.iterdir())
  return {
    "passages": made["num_passages"],
    "pieces_a_passage": round(made["num_pieces"] / made["num_passages"], 1),
    "seconds": round(seconds, 1),
    "passages_a_second": round(made["num_passages"] / seconds),
    "cpu_seconds": round(watch.cpu_seconds, 1),
    "passages_a_cpu_second": round(made["num_passages"] / watch.cpu_seconds),
    "peak_mb": round(watch.peak_bytes / 1e6),
    "peak_mb_a_worker": round(watch.peak_worker_bytes / 1e6),
    "corpus_mb": round(size / 1e6),
  }


def extrapolate(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
  """Returns the memory of all Wikipedia, on through the line of two sizes."""
  more = large["passages"] - small["passages"]
  a_passage = (large["peak_mb"] - small["peak_mb"]) / more
  peak = large["peak_mb"] + a_passage * (_WIKIPEDIA - large["passages"])
  return {
    "passages": _WIKIPEDIA,
    "bytes_a_passage": round(1e6 * a_passage),
    "estimated_peak_mb": round(peak),
    "estimated_cpu_hours": round(
      _WIKIPEDIA / large["passages_a_cpu_second"] / 3600, 1
    ),
  }


def _made_up(folder: pathlib.Path, workers: int) -> Iterator[dict[str, Any]]:
  train_tokenizer([" ".join(make_words())] * 2, 2000, folder / "tokenizer")
  for share in (4, 1):
    source = folder / "source.jsonl"
    write_source(source, _PASSAGES.value // share // _DOCUMENT_PASSAGES)
    yield prepare(
      str(source), str(folder / "tokenizer"), folder / f"{share}", workers
    )


def main(_: list[str]) -> None:
  """Prints a line of JSON for each size, and one of what follows of them."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if _SOURCE.value:
      arguments = (_SOURCE.value, _TOKENIZER.value, folder / "corpus")
      print(json.dumps(prepare(*arguments, _WORKERS.value)))
      return
    found = []
    for figures in _made_up(folder, _WORKERS.value):
      print(json.dumps(figures), flush=True)
      found.append(figures)
    print(json.dumps(extrapolate(*found)))


if __name__ == "__main__":
  app.run(main)
