# SPDX-License-Identifier: Apache-2.0
r"""`make squad-open DATA=<folder>`: from three files to answers.

Prepares the corpus and trains ICT, REALM, the supervised retriever and the
reader; DIRECTORY (`squad_open`) is the reader's workdir then:

    realm evaluate --workdir=squad_open --questions=<folder>/validation.jsonl.gz

The same command goes on after a stop. With `--prepare_only` it makes the
corpus, for `realm table`.

On two cores its six runs, one after another, took four hours and a half (those
of REALM with another beside them): ICT 8 minutes, reading clozes 15, REALM
126, the supervised retriever 33, the reader 76, fine-tuning 13. What they score
is in `table.py`.
"""

import argparse
import dataclasses
import os
import pathlib
import signal
import sys

from experiments.squad_open import clozes, minilm
from experiments.squad_open.stages import LENGTHS, SIZES
from experiments.squad_open.table import table
from launch.cells import Cells
from launch.processes import Processes
from launch.table import Row
from realm_jax import checksums, files
from realm_jax.data.corpus import PassageCorpus
from realm_jax.train.stop import STOPPED_EXIT_CODE

LAST = "qa_dpr_realm"
_FILES = ("corpus.jsonl.gz", "train.jsonl.gz", "validation.jsonl.gz")


def prepare(data: str, directory: pathlib.Path) -> None:
  """Makes the corpus, and texts to mask, unless they are there.

  Raises:
    ValueError: a file of `data` is missing, the directory has the corpus of
      another, or MiniLM is not installed.
    SystemExit: the corpus could not be made.
  """
  missing = [n for n in _FILES if not os.path.exists(os.path.join(data, n))]
  if missing:
    raise ValueError(
      f"{data!r} must hold {list(_FILES)}, and lacks {missing}: name the "
      "folder, as in `make squad-open DATA=<folder>`."
    )
  source = os.path.join(data, "corpus.jsonl.gz")
  corpus, made_of = directory / "corpus", directory / "corpus.sha256"
  digest = checksums.sha256_of(source)
  if not corpus.exists():
    directory.mkdir(parents=True, exist_ok=True)
    files.write_whole(made_of, digest)
    Processes().realm(
      "prepare-corpus",
      source=source,
      output=corpus,
      tokenizer=minilm.folder(),
      max_pieces=LENGTHS.passage,
    )
  elif not made_of.exists() or made_of.read_text() != digest:
    raise ValueError(
      f"{corpus} was made of another file than {source}: use another directory."
    )
  if not (directory / "texts" / clozes.FILE).exists():
    clozes.write(PassageCorpus.open(corpus), directory / "texts")


def main(argv: list[str]) -> int:
  """Runs it; returns the exit code."""
  parser = argparse.ArgumentParser(prog="make squad-open", description=__doc__)
  parser.add_argument("--data", required=True)
  parser.add_argument("--directory", type=pathlib.Path, default="squad_open")
  parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--prepare_only", action="store_true")
  args = parser.parse_args(argv)
  directory = str(args.directory)
  try:
    prepare(args.data, args.directory)
    if not args.prepare_only:
      whole = table(args.size, directory, args.data)
      row = Row(name="last", label="", stage=LAST)
      chosen = dataclasses.replace(whole, seeds=(args.seed,), rows=(row,))
      Cells(chosen, directory).train(LAST, args.seed, args.directory)
      print(f"Trained: realm evaluate --workdir={directory} --questions=…")
  except (ValueError, OSError) as error:
    print(f"make squad-open: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED_EXIT_CODE))
  sys.exit(main(sys.argv[1:]))
