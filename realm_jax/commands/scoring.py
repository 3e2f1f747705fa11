# SPDX-License-Identifier: Apache-2.0
"""What tells how good runs are."""

import json

from absl import flags

from realm_jax.commands.command import (
  Command,
  config_flag,
  no_more,
  read_flag,
  searched_corpus_flag,
  workdir_flag,
)

FLAGS = flags.FLAGS


def _evaluate_flags() -> None:
  workdir_flag()
  flags.DEFINE_string(
    "questions",
    "",
    "Questions to score a run on: JSONL (.gz too) of {question, answers or "
    "answers_regex, passage_id?}, or tfds:<set>/<split>; of a run that is not "
    "openqa, the retriever alone is scored.",
  )
  flags.DEFINE_string(
    "texts", "", "Masked texts instead: JSONL of {text, spans, passage_uid?}."
  )
  flags.DEFINE_string(
    "predictions",
    "",
    "File to write, JSONL (.gz too) with evidence; its figures go beside it. "
    "By default evaluation.jsonl in the workdir, where the report looks.",
  )
  searched_corpus_flag()
  flags.DEFINE_integer("limit", 0, "Use the first so many lines; 0 for all.")
  flags.DEFINE_enum(
    "retriever",
    "",
    ["", "dense", "bm25", "hybrid", "gold"],
    "What finds passages for questions; by default what the run trained with. "
    "'gold' has the reader read those that questions name.",
  )
  read_flag(also=", or to list where a run has no reader")


def _evaluate(args: list[str]) -> int:
  no_more(args)
  from realm_jax.eval import evaluate

  figures = evaluate.evaluate(
    FLAGS.workdir,
    questions=FLAGS.questions,
    texts=FLAGS.texts,
    predictions=FLAGS.predictions,
    corpus=FLAGS.corpus,
    limit=FLAGS.limit,
    retriever=FLAGS.retriever,
    read=FLAGS.read,
  )
  # For programs: one line, the last.
  print(json.dumps(figures, ensure_ascii=False))
  return 0


def _table_flags() -> None:
  flags.DEFINE_string("workdir", None, "The table's directory.", required=True)
  config_flag("The table's file.")


def _table(args: list[str]) -> int:
  no_more(args)
  from launch import cells, table

  cells.run_table(table.parse(FLAGS.config), FLAGS.workdir)
  return 0


def _report(args: list[str]) -> int:
  no_more(args)
  from realm_jax.eval import report

  print(report.write_report(FLAGS.workdir))
  return 0


COMMANDS = {
  "evaluate": Command(
    "score a run on questions or on masked texts",
    _evaluate_flags,
    _evaluate,
    computes=True,
  ),
  "table": Command(
    "train and score the rows of a table, or go on with it",
    _table_flags,
    _table,
  ),
  "report": Command("write report/report.html", workdir_flag, _report),
}
