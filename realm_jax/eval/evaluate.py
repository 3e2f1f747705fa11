# SPDX-License-Identifier: Apache-2.0
"""`realm evaluate`: a checkpoint's figures on held-out data."""

import os
from typing import Any

from etils import epath
import rich
import rich.table

from realm_jax import workdir as workdirs
from realm_jax.eval import masked_spans, open_qa
from realm_jax.eval.predictions import write_evaluation

# Where the report looks for an evaluation.
EVALUATION_FOLDER = "evaluation"

_LABELS = {
  "exact_match": "exact match",
  "f1": "F1",
  "open_book_exact_match": "span exact match, open book",
  "closed_book_exact_match": "span exact match, null document only",
  "retrieval_utility": "retrieval utility, nats a span",
  "gold_retrieval_prob": "p(z|x) of the fact's passage",
}


def evaluate(
  workdir: str,
  data: str,
  output: str,
  corpus: str = "",
  step: int = 0,
  limit: int = 0,
) -> dict[str, Any]:
  """Evaluates a checkpoint, writes and prints the figures.

  Args:
    workdir: of a run of any stage.
    data: JSONL; for openqa of {"question", "answers", "passage_uid"?}, for
      the others of {"text", "spans", "passage_uid"?, "source_uid"?}.
    output: directory for predictions.jsonl (one object for each line of
      data, with evidence) and figures.json.
    corpus: directory of a corpus to search instead of the one that the run
      has moved to; the workdir needs an index of it.
    step: of the checkpoint; 0 for the newest.
    limit: use the first so many lines; 0 for all.

  Returns:
    What figures.json holds: where the figures come from, and the figures.

  Raises:
    FileNotFoundError: no config, checkpoint or index.
    ValueError: malformed data (with file and line), or an index that does not
      fit.
  """
  stage = workdirs.load(workdir).stage
  evaluate_stage = (
    open_qa.evaluate_questions
    if stage == "openqa"
    else masked_spans.evaluate_spans
  )
  figures, found = evaluate_stage(
    workdir, data, corpus=corpus, step=step, limit=limit
  )
  figures = {"stage": stage, "data": data, **figures}
  write_evaluation(epath.Path(output), figures, found)
  count, step = figures["num_examples"], figures["step"]
  print(f"{count:,} examples of {data}, checkpoint {step:,}")
  rich.print(_table(figures))
  print(f"Predictions: {os.path.join(output, 'predictions.jsonl')}")
  return figures


def _table(figures: dict[str, Any]) -> rich.table.Table:
  table = rich.table.Table()
  table.add_column("figure")
  table.add_column("value", justify="right")
  for name, value in figures.items():
    if isinstance(value, float):
      table.add_row(_label(name), f"{value:.3f}")
  return table


def _label(name: str) -> str:
  if "_recall_at_" in name:
    what, depth = name.split("_recall_at_")
    return f"recall@{depth}, {what}"
  return _LABELS.get(name, name)
