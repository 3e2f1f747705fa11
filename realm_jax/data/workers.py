# SPDX-License-Identifier: Apache-2.0
"""The parts of a corpus, made by processes of this machine."""

from collections.abc import Callable, Iterator
import concurrent.futures
from concurrent.futures.process import BrokenProcessPool
import itertools
import multiprocessing
import os
import pathlib
import threading
import time

from realm_jax.data.parts import Chunk, PartMaker

# Chunks in memory for each process: one is worked at, one is waiting.
_CHUNKS_AHEAD = 2
_maker: PartMaker | None = None  # A process' own.


def make_parts(
  chunks: Iterator[Chunk],
  folder: pathlib.Path,
  max_pieces: int,
  num_processes: int,
  progress: Callable[[int], None],
) -> list[str]:
  """Makes the parts that are not there; returns the names of all.

  One chunk alone is worked at in this process.

  Args:
    chunks: of the source, in its order; read as they are needed, and a few of
      them kept in memory.
    folder: where the parts are.
    max_pieces: P.
    num_processes: beside this one, which reads.
    progress: called now and then with the number of passages made.

  Raises:
    ValueError, OSError: as reading and `PartMaker.make` raise them; or a
      process died. What is done stays done.
  """
  names: list[str] = []

  def missing() -> Iterator[Chunk]:
    for chunk in chunks:
      names.append(chunk.name)
      if not (folder / chunk.name).exists():
        yield chunk

  waiting = missing()
  first = list(itertools.islice(waiting, 2))
  if len(first) < 2:
    for chunk in first:
      progress(PartMaker(folder, max_pieces).make(chunk))
    return names
  chain = itertools.chain(first, waiting)
  _share_out(chain, folder, max_pieces, num_processes, progress)
  return names


def _share_out(
  chunks: Iterator[Chunk],
  folder: pathlib.Path,
  max_pieces: int,
  num_processes: int,
  progress: Callable[[int], None],
) -> None:
  made = 0
  with concurrent.futures.ProcessPoolExecutor(
    num_processes,
    # Forked processes would inherit threads' locks.
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_start,
    initargs=(folder, max_pieces, os.getpid()),
  ) as pool:
    running: set[concurrent.futures.Future[int]] = set()
    try:
      for chunk in chunks:
        running.add(pool.submit(_make, chunk))
        if len(running) < num_processes * _CHUNKS_AHEAD:
          continue
        done, running = concurrent.futures.wait(
          running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        made += sum(future.result() for future in done)
        progress(made)
      made += sum(f.result() for f in concurrent.futures.as_completed(running))
      progress(made)
    except BrokenProcessPool as error:
      raise OSError(
        f"A process that cut documents was killed, perhaps for its memory: run "
        f"the same command again, which goes on, with fewer than "
        f"{num_processes} --workers."
      ) from error
    finally:
      pool.shutdown(cancel_futures=True)


def _start(folder: pathlib.Path, max_pieces: int, parent: int) -> None:
  global _maker
  # Each process is one of as many as there are cores.
  os.environ["TOKENIZERS_PARALLELISM"] = "false"
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  _maker = PartMaker(folder, max_pieces)


def _end_with(parent: int) -> None:
  # A killed parent cannot tell its children, who would wait for ever.
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


def _make(chunk: Chunk) -> int:
  assert _maker is not None
  return _maker.make(chunk)
