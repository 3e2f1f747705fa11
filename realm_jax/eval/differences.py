# SPDX-License-Identifier: Apache-2.0
"""Two evaluations of the same questions, compared question by question.

Most of what an interval spans is that some questions are harder than others.
Asked of both models they are the same questions, so that the difference is
known better than either figure (paired bootstrap; Koehn 2004, section 4).
"""

import json
from typing import Any

from etils import epath
from jaxtyping import Float
import numpy as np

from realm_jax.data.jsonl import parse_object, read_lines
from realm_jax.eval.figures import INTERVALS, summarise
from realm_jax.eval.predictions import figures_path
from realm_jax.eval.retrieval import RECALL_AT, recall_columns

# Fields of a question's line that are figures of it.
_SCORES = ("exact_match", "f1", "regex_search", "oracle_exact_match")
_RANKS = ("answer_rank", "passage_rank")
_DEPTH = max(RECALL_AT)


def differences(path: epath.Path, baseline: epath.Path) -> dict[str, Any]:
  """Returns what one evaluation scores beyond another, and intervals.

  Args:
    path: of predictions for questions, with their figures beside them.
    baseline: of another model's for the same questions.

  Returns:
    As `summarise` does, of the differences in what both tell of each question:
    its scores, and the recall that follows from its ranks.

  Raises:
    ValueError: the questions are not the same.
  """
  asked, columns = _read(path)
  asked_before, before = _read(baseline)
  if asked != asked_before:
    raise ValueError(
      f"{path} and {baseline} do not answer the same questions "
      f"({len(asked)} and {len(asked_before)}): evaluate both on one file."
    )
  return summarise(
    {name: columns[name] - before[name] for name in columns if name in before}
  )


def _read(
  path: epath.Path,
) -> tuple[list[str], dict[str, Float[np.ndarray, " n"]]]:
  """Returns n questions, and those of their figures that lines tell."""
  questions, named, scores, places = [], [], [], []
  for number, line in read_lines(path):
    found = parse_object(line, f"{path}:{number}")
    questions.append(found["question"])
    named.append(bool(found["passage_uid"]))
    scores.append([found.get(name) for name in _SCORES])
    # Ranks count from 1. Without one, it was not among the first to matter.
    ranks = (found[name] or 1 + _DEPTH for name in _RANKS)
    places.append([rank - 1 for rank in ranks])
  answers, passages = np.array(places).T
  columns = {
    **dict(zip(_SCORES, np.array(scores, np.float64).T, strict=True)),
    **recall_columns(answers, passages, np.array(named), _DEPTH),
  }
  told = json.loads(figures_path(path).read_text())[INTERVALS]
  return questions, {name: columns[name] for name in columns if name in told}
