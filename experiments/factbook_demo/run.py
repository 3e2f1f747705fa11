# SPDX-License-Identifier: Apache-2.0
"""`make demo`: every stage, by the commands that a user would type.

Stages that are done are skipped, and an interrupted one goes on from its last
checkpoint: the same command again is all that it takes.
"""

import argparse
from collections.abc import Callable, Mapping
import json
import pathlib
import shutil
import signal
import sys
import time
from typing import Any

import rich

from experiments.factbook_demo import edits as edits_lib
from experiments.factbook_demo import examples, settings, summary, warmup
from experiments.factbook_demo.facts import extract_facts
from launch.processes import Processes, realm, train
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import load_tokenizer

_CONFIGS = pathlib.Path(__file__).parent


class Demo:
  """One run of the demo in one directory."""

  def __init__(self, directory: pathlib.Path, seed: int) -> None:
    """Reads which stages of an earlier run are done.

    Raises:
      ValueError: the directory is of a run with another seed.
    """
    self.directory, self.seed = directory, seed
    self.processes = Processes()
    self._path = directory / "progress.json"
    self._progress: dict[str, Any] = {"seed": seed, "stages": {}}
    if self._path.exists():
      self._progress = json.loads(self._path.read_text(encoding="utf-8"))
    if self._progress["seed"] != seed:
      raise ValueError(
        f"{directory} holds a demo of seed {self._progress['seed']}, and seed "
        f"{seed} is asked for: use another --directory."
      )

  def run(self, stages: Mapping[str, Callable[["Demo"], None]]) -> None:
    """Runs the stages that are not done."""
    for name, stage in stages.items():
      record = self._progress["stages"].setdefault(
        name, {"seconds": 0.0, "peak_bytes": 0, "done": False}
      )
      if record["done"]:
        rich.print(f"[dim]{name}: done in {record['seconds']:.0f} s[/dim]")
        continue
      rich.print(f"\n[bold]{name}[/bold]: {stage.__doc__}")
      self._run_stage(stage, record)

  def summarise(self) -> dict[str, Any]:
    """Returns the figures of a demo whose stages are all done."""
    records = self._progress["stages"].values()
    return summary.summarise(
      self.directory,
      wall_seconds=sum(record["seconds"] for record in records),
      peak_bytes=max(record["peak_bytes"] for record in records),
    )

  def _run_stage(
    self, stage: Callable[["Demo"], None], record: dict[str, Any]
  ) -> None:
    began = time.monotonic()
    self.processes.peak_bytes = record["peak_bytes"]
    try:
      stage(self)
      record["done"] = True
    finally:  # The time of an interrupted stage counts, too.
      record["seconds"] += time.monotonic() - began
      record["peak_bytes"] = self.processes.peak_bytes
      self.directory.mkdir(parents=True, exist_ok=True)
      self._path.write_text(json.dumps(self._progress, indent=2))

  def training(self, stage: str) -> list[str]:
    """Returns the command line that trains a stage."""
    config = f"{_CONFIGS / stage}.py:{self.directory}"
    return train(
      config=config,
      workdir=self.directory / stage,
      **{"config.seed": self.seed},
    )

  def evaluating(
    self, stage: str, data: str, name: str = "evaluation", **flags: object
  ) -> list[str]:
    """Returns the command line that evaluates a stage on a data file."""
    workdir = self.directory / stage
    kind = "questions" if stage == "openqa" else "texts"
    return realm(
      "evaluate",
      workdir=workdir,
      predictions=workdir / f"{name}.jsonl",
      **{kind: self.directory / "data" / data},
      **flags,
    )


def prepare(demo: Demo) -> None:
  """The factbook as a corpus; its facts as sentences and questions."""
  for name in ("data", "corpus", "edited_corpus", "tokenizer"):
    shutil.rmtree(demo.directory / name, ignore_errors=True)
  data = demo.directory / "data"
  data.mkdir(parents=True)
  documents = examples.demo_documents()
  examples.write_documents(data / "documents.jsonl", documents)
  demo.processes.realm(
    "prepare-corpus",
    source=data / "documents.jsonl",
    output=demo.directory / "corpus",
    tokenizer=demo.directory / "tokenizer",
    train_vocabulary=settings.VOCABULARY,
    max_pieces=settings.LENGTHS.passage,
  )
  corpus = PassageCorpus.open(demo.directory / "corpus")
  placed = examples.place_facts(
    extract_facts(documents),
    corpus,
    load_tokenizer(demo.directory / "tokenizer"),
    max_query_pieces=settings.LENGTHS.query - 2,  # [CLS] and [SEP].
  )
  examples.write_examples(placed, data)
  held_out = {one.passage_uid for one in placed if one.fact.split != "train"}
  examples.write_jsonl(
    data / "train_warmup.jsonl", warmup.fragments(corpus, held_out, seed=0)
  )
  majority = {"exact_match": examples.majority_exact_match(placed)}
  (data / "majority.json").write_text(json.dumps(majority))
  edits = edits_lib.choose_edits(placed, corpus)
  examples.write_documents(
    data / "edits.jsonl", edits_lib.edited_documents(documents, edits)
  )
  for name, after in (("before", False), ("after", True)):
    asked = edits_lib.questions(edits, after)
    examples.write_jsonl(data / f"edits_{name}.jsonl", asked)


def ict(demo: Demo) -> None:
  """The retriever's warm-up: which passage does this text come from?"""
  demo.processes.together([demo.training("ict")])


def reading(demo: Demo) -> None:
  """The encoder's warm-up: fill in a masked text with its passage in view."""
  demo.processes.together([demo.training("reading")])


def pretraining(demo: Demo) -> None:
  """REALM: fill in facts with what is looked up, the index rebuilt beside."""
  demo.processes.together([demo.training("realm")])


def closed_book(demo: Demo) -> None:
  """The baseline: an encoder that learns the same sentences by heart."""
  demo.processes.together([demo.training("closed_book")])


def question_answering(demo: Demo) -> None:
  """A span reader and the query tower learn from questions."""
  demo.processes.together([demo.training("openqa")])


def evaluation(demo: Demo) -> None:
  """Facts that no training sentence or question has told."""
  workdir = demo.directory / "ict"
  demo.processes.realm("build-index", workdir=workdir)
  unseen = examples.UNSEEN_WORDINGS
  for command in (
    demo.evaluating("ict", "test_text.jsonl"),
    demo.evaluating("closed_book", "test_text.jsonl"),
    demo.evaluating("realm", "test_text.jsonl"),
    demo.evaluating("openqa", "test_qa.jsonl"),
    demo.evaluating("openqa", unseen, "unseen_wordings"),
  ):
    demo.processes.together([command])


def knowledge_update(demo: Demo) -> None:
  """The corpus is edited and indexed again; nothing is trained."""
  edited = demo.directory / "edited_corpus"
  shutil.rmtree(edited, ignore_errors=True)
  demo.processes.realm(
    "edit-corpus",
    corpus=demo.directory / "corpus",
    edits=demo.directory / "data" / "edits.jsonl",
    output=edited,
  )
  workdir = demo.directory / "openqa"
  demo.processes.realm("build-index", workdir=workdir, corpus=edited)
  for command in (
    demo.evaluating("openqa", "edits_before.jsonl", "edits_before"),
    demo.evaluating(
      "openqa", "edits_after.jsonl", "edits_after", corpus=edited
    ),
  ):
    demo.processes.together([command])


def reports(demo: Demo) -> None:
  """A page to look at, for pre-training and for question answering."""
  for stage in ("realm", "openqa"):
    demo.processes.realm("report", workdir=demo.directory / stage)


STAGES = {
  "prepare": prepare,
  "ict": ict,
  "reading": reading,
  "realm": pretraining,
  "closed_book": closed_book,
  "openqa": question_answering,
  "evaluation": evaluation,
  "knowledge_update": knowledge_update,
  "reports": reports,
}


def main(argv: list[str]) -> int:
  """Runs the demo; returns the exit code."""
  parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
  parser.add_argument("--directory", type=pathlib.Path, default="demo")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--prepare_only", action="store_true", help="make the data and stop"
  )
  args = parser.parse_args(argv)
  try:
    demo = Demo(args.directory, args.seed)
    if args.prepare_only:
      demo.run({"prepare": prepare})
      return 0
    demo.run(STAGES)
    found = demo.summarise()
  except (ValueError, OSError) as error:
    print(f"make demo: {error}", file=sys.stderr)
    return 1
  path = args.directory / "summary.json"
  path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
  rich.print(summary.table(found))
  print(f"Figures: {path}")
  print(f"Report: {args.directory / 'realm' / 'report' / 'report.html'}")
  return 0


if __name__ == "__main__":
  # As Ctrl-C does: the stage that runs is stopped, and its time is kept.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  sys.exit(main(sys.argv[1:]))
