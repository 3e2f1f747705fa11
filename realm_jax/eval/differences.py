# SPDX-License-Identifier: Apache-2.0
"""Two evaluations of the same questions, compared question by question.

Most of what an interval spans is that some questions are harder than others.
Asked of both models they are the same questions, so that the difference is
known better than either figure (paired bootstrap; Koehn 2004, section 4).
"""

from collections.abc import Sequence
import json
import re
from typing import Any

from etils import epath
import numpy as np

from realm_jax.data.jsonl import parse_object, read_lines
from realm_jax.eval.figures import INTERVALS, summarise
from realm_jax.eval.predictions import figures_path

_RECALL = re.compile(r"(answer|passage)_recall_at_(\d+)")
# Fields of a question's line that are figures of it.
_SCORES = ("exact_match", "f1", "regex_search", "oracle_exact_match")


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
  others = _names(baseline)
  names = [name for name in _names(path) if name in others]
  asked, values = _read(path, names)
  asked_before, values_before = _read(baseline, names)
  if asked != asked_before:
    raise ValueError(
      f"{path} and {baseline} do not answer the same questions "
      f"({len(asked)} and {len(asked_before)}): evaluate both on one file."
    )
  return summarise(dict(zip(names, (values - values_before).T, strict=True)))


def _names(path: epath.Path) -> list[str]:
  """Returns the figures that lines of predictions tell."""
  found = json.loads(figures_path(path).read_text())[INTERVALS]
  return [name for name in found if name in _SCORES or _RECALL.fullmatch(name)]


def _read(
  path: epath.Path, names: Sequence[str]
) -> tuple[list[str], np.ndarray]:
  """Returns n questions, and their figures [n, names]."""
  questions, values = [], []
  for number, line in read_lines(path):
    found = parse_object(line, f"{path}:{number}")
    questions.append(found["question"])
    values.append([_value(found, name) for name in names])
  return questions, np.array(values, np.float64).reshape(-1, len(names))


def _value(line: dict[str, Any], name: str) -> float:
  """Returns a figure of one question, NaN where it does not count."""
  if recall := _RECALL.fullmatch(name):
    kind, k = recall.groups()
    if kind == "passage" and not line["passage_uid"]:
      return np.nan
    rank = line[f"{kind}_rank"]
    return float(rank is not None and rank <= int(k))
  return np.nan if line[name] is None else float(line[name])
