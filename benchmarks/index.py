# SPDX-License-Identifier: Apache-2.0
"""Measures the index beside exact search and faiss-cpu.

    pip install -e '.[bench]'                                 faiss-cpu
    python -m benchmarks.index                                20k, 200k, 1M
    python -m benchmarks.index --passages=13353718 --contestants=scann,exact

Each contestant indexes the same clustered vectors (benchmarks/clustered.py) in
a process of its own, whose peak memory includes them, and answers the same
queries. Exact search runs first, as the reference of recall@10. ScaNN runs as
`realm` lays it out by default; for faiss, the effort of a search is doubled
until recall@10 is 0.99. A last process opens the version that `scann`
published while it runs steps, and tells how long one was held up. The last
line is JSON.
"""

from concurrent.futures import ThreadPoolExecutor
import importlib.util
import json
import multiprocessing
import os
import pathlib
import re
import tempfile
import time
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks.clustered import Clustered
from benchmarks.contestants import CONTESTANTS, Contestant, Scann

_PASSAGES = flags.DEFINE_list("passages", ["20000", "200000", "1000000"], "N.")
_CONTESTANTS = flags.DEFINE_list(
  "contestants", list(CONTESTANTS), "Some of them."
)
_QUERIES = flags.DEFINE_integer("queries", 1024, "Of each contestant.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the vectors.")

DIM = 128
K = 10
GOAL = 0.99  # Recall@10.
BATCH = 64  # Queries that are searched together.
_WARMUP_ROWS = 5000
NUM_CORES = len(os.sched_getaffinity(0))

Figures = dict[str, Any]


def compete(
  name: str, data: Clustered, num_queries: int, folder: pathlib.Path
) -> Figures:
  """Builds and searches one contestant's index, in a process of its own."""
  vectors, queries = data.vectors(), data.queries(num_queries)
  _use_threads(name, NUM_CORES)
  CONTESTANTS[name](vectors[:_WARMUP_ROWS])  # Imports the library.
  started, cpu_started = time.perf_counter(), time.process_time()
  contestant = CONTESTANTS[name](vectors)
  build_seconds = time.perf_counter() - started
  build_cpu_seconds = time.process_time() - cpu_started
  _use_threads(name, 1)
  for effort in contestant.efforts:
    ids = contestant.search(queries, K, effort)
    if name == "exact":
      np.save(folder / "exact.npy", ids)
    recall = _recall(ids, np.load(folder / "exact.npy"))
    if recall >= GOAL:
      break
  if isinstance(contestant, Scann):
    from benchmarks import swap  # Not by others: it brings JAX along.

    swap.publish_version(folder, vectors, contestant.index)
  cpu_started = time.process_time()
  one_thread = _rate(contestant, queries, effort, 1)
  return {
    "contestant": name,
    "passages": len(vectors),
    "build_seconds": build_seconds,
    "build_cpu_seconds": build_cpu_seconds,
    "peak_gb": _peak_bytes() / 1e9,
    "recall_at_10": recall,
    "qps_one_thread": one_thread,
    "cpu_seconds_per_1k": (time.process_time() - cpu_started)
    / (len(queries) / 1e3),
    "qps_all_cores": _rate(contestant, queries, effort, NUM_CORES),
    "effort": effort,
  }


def hold(folder: pathlib.Path, num_passages: int) -> Figures:
  """Opens what `scann` published, in a process of its own."""
  from benchmarks import swap

  return {
    "contestant": "swap",
    "passages": num_passages,
    **swap.measure(folder, num_passages),
  }


def _use_threads(name: str, count: int) -> None:
  if name.startswith("faiss"):
    import faiss

    faiss.omp_set_num_threads(count)


def _peak_bytes() -> int:
  status = pathlib.Path("/proc/self/status").read_text()
  found = re.search(r"VmHWM:\s+(\d+) kB", status)
  assert found is not None
  return int(found[1]) * 1024


def _recall(ids: np.ndarray, exact: np.ndarray) -> float:
  return float((ids[:, :, None] == exact[:, None, :]).any(axis=2).mean())


def _rate(
  contestant: Contestant, queries: np.ndarray, effort: int, num_threads: int
) -> float:
  """Returns queries a second, in batches that threads take by turns."""
  batches = np.split(queries, range(BATCH, len(queries), BATCH))
  with ThreadPoolExecutor(num_threads) as threads:
    started = time.perf_counter()
    list(threads.map(lambda x: contestant.search(x, K, effort), batches))
    return len(queries) / (time.perf_counter() - started)


def _in_own_process(function: Any, *args: Any) -> Any:
  spawn = multiprocessing.get_context("spawn")
  with spawn.Pool(1) as pool:
    return pool.apply(function, args)


def run(
  num_passages: int, names: list[str], num_queries: int, seed: int
) -> list[Figures]:
  """Measures contestants, and the swap where `scann` is one of them."""
  data = Clustered(num_passages, DIM, seed)
  results = []
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    # The reference of the others' recall.
    for name in ["exact", *(name for name in names if name != "exact")]:
      figures = _in_own_process(compete, name, data, num_queries, folder)
      _print(figures)
      results.append(figures)
    if "scann" in names:
      figures = _in_own_process(hold, folder, num_passages)
      _print(figures)
      results.append(figures)
  return results


def _print(figures: Figures) -> None:
  cells = (
    f"{name}={value:.4g}" if isinstance(value, float) else f"{value:<12}"
    for name, value in figures.items()
  )
  print("  ".join(cells), flush=True)


def main(argv: list[str]) -> None:
  """Prints the figures, and again as JSON."""
  del argv
  names = _CONTESTANTS.value
  if unknown := sorted(set(names) - set(CONTESTANTS)):
    raise app.UsageError(
      f"--contestants has {unknown}; there are {list(CONTESTANTS)}."
    )
  if any(name.startswith("faiss") for name in names) and not (
    importlib.util.find_spec("faiss")
  ):
    raise app.UsageError(
      "faiss is not installed: pip install -e '.[bench]', or leave it out of "
      "--contestants."
    )
  # Inherited: a search is to take the thread that calls it, and no more.
  os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
  os.environ["JAX_PLATFORMS"] = "cpu"
  results = []
  for number in _PASSAGES.value:
    results += run(int(number), names, _QUERIES.value, _SEED.value)
  print(json.dumps(results))


if __name__ == "__main__":
  app.run(main)
