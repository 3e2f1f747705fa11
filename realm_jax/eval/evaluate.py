# SPDX-License-Identifier: Apache-2.0
"""`realm evaluate`: a checkpoint's figures on held-out data."""

import os
from typing import Any

from etils import epath
import rich
import rich.table

from realm_jax import workdir as workdirs
from realm_jax.eval import masked_spans
from realm_jax.eval import questions as scored_questions
from realm_jax.eval.figures import INTERVALS
from realm_jax.eval.predictions import PREDICTIONS, write_evaluation
from realm_jax.eval.questions import Choice

_LABELS = {
  "exact_match": "exact match",
  "f1": "F1",
  "regex_search": "a pattern found in the answer",
  "oracle_exact_match": "exact match, best of the answers given",
  "reader_oracle": "an answer is in what was read",
  "open_book_exact_match": "span exact match, open book",
  "closed_book_exact_match": "span exact match, null document only",
  "retrieval_utility": "retrieval utility, nats a span",
  "own_words": "candidates that hold the text's own words",
}


def evaluate(
  workdir: str,
  *,
  questions: str = "",
  texts: str = "",
  predictions: str = "",
  corpus: str = "",
  step: int = 0,
  limit: int = 0,
  retriever: Choice = "",
  read: int = 0,
) -> dict[str, Any]:
  """Evaluates a checkpoint, writes and prints the figures.

  Args:
    workdir: of a run of any stage.
    questions: a source, as `Questions` takes it. Passages are scored, and of
      an openqa run answers.
    texts: JSONL of {"text", "spans", "passage_uid"?, "source_uid"?}, for runs
      of the other stages; either these or questions.
    predictions: file to write one JSON object to for each question or text,
      with evidence, and beside it the figures; "" for `evaluation.jsonl` in
      the workdir.
    corpus: directory of a corpus to search instead of the one that the run
      has moved to; the workdir needs an index of it.
    step: of the checkpoint; 0 for the newest.
    limit: use the first so many lines; 0 for all.
    retriever: what finds passages for questions; "" for the run's own, "gold"
      to have those read that questions name, which bounds the reader. A
      question that names none is answered wrong then.
    read: passages to read for each question, which may be more than in
      training, or to list where a run has no reader; 0 for openqa.read.

  Returns:
    Where the figures come from, and the figures, with 95% intervals.

  Raises:
    FileNotFoundError: no config, checkpoint or index.
    ValueError: malformed data (with file and line), an index that does not
      fit, or data that the run's stage is not scored by.
  """
  stage = workdirs.load(workdir).stage
  if bool(questions) == bool(texts):
    raise ValueError(
      "An evaluation is on questions or on texts: give one of --questions "
      f"({questions!r}) and --texts ({texts!r})."
    )
  if texts and stage == "openqa":
    raise ValueError(
      f"{workdir} is a run of stage 'openqa', whose reader answers questions "
      "and fills in no masks: give --questions."
    )
  if texts and retriever:
    raise ValueError(f"--retriever={retriever} finds passages for questions.")
  data = questions or texts
  where: dict[str, Any] = {"corpus": corpus, "step": step, "limit": limit}
  figures, found = (
    scored_questions.evaluate_questions(
      workdir, data, **where, read=read, retriever=retriever
    )
    if questions
    else masked_spans.evaluate_spans(workdir, data, **where)
  )
  figures = {"stage": stage, "data": data, **figures}
  predictions = predictions or os.path.join(workdir, PREDICTIONS)
  write_evaluation(epath.Path(predictions), figures, found)
  count, step = figures["num_examples"], figures["step"]
  print(f"{count:,} examples of {data}, checkpoint {step:,}")
  rich.print(_table(figures))
  print(f"Predictions: {predictions}")
  return figures


def _table(figures: dict[str, Any]) -> rich.table.Table:
  table = rich.table.Table()
  table.add_column("figure")
  table.add_column("value", justify="right")
  table.add_column("95% interval", justify="right")
  for name, (low, high) in figures[INTERVALS].items():
    table.add_row(_label(name), f"{figures[name]:.3f}", f"{low:.3f}-{high:.3f}")
  return table


def _label(name: str) -> str:
  if "_recall_at_" in name:
    what, depth = name.split("_recall_at_")
    return f"recall@{depth}, {what}"
  return _LABELS.get(name, name)
