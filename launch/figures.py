# SPDX-License-Identifier: Apache-2.0
"""The cells of a table, and how they are shown."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

_COLUMNS = {
  "exact_match": "EM",
  "f1": "F1",
  "open_book_exact_match": "filled in",
  "closed_book_exact_match": "closed book",
  "passage_recall_at_1": "R@1",
  "passage_recall_at_5": "R@5",
  "passage_recall_at_20": "R@20",
  "passage_recall_at_100": "R@100",
  "answer_recall_at_5": "answer in 5",
  "retrieval_utility": "utility, nats",
}
_NATS = "retrieval_utility"  # Every other column is a share.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """A row with one seed."""

  row: str
  label: str
  seed: int
  seconds: dict[str, float]  # Of each stage up to the row's, and its scoring.
  figures: dict[str, Any]  # As `realm evaluate` writes them.


def to_markdown(cells: Sequence[Cell]) -> str:
  """Returns a line for each row and seed, shares in percent, 95% intervals.

  A row of several seeds gets another line, with means and ranges. Minutes are
  those of all that a row needs, also where it shares it with others.
  """
  columns = [c for c in _COLUMNS if any(c in cell.figures for cell in cells)]
  heads = ["", "seed", *(_COLUMNS[c] for c in columns), "minutes"]
  lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
  for row in dict.fromkeys(cell.row for cell in cells):
    of_row = [cell for cell in cells if cell.row == row]
    lines += [_line(cell, columns) for cell in of_row]
    if len(of_row) > 1:
      lines.append(_mean_line(of_row, columns))
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(cell: Cell, columns: Sequence[str]) -> list[str]:
  values = [_value(cell.figures, column) for column in columns]
  return [cell.label, str(cell.seed), *values, _minutes(cell)]


def _mean_line(cells: Sequence[Cell], columns: Sequence[str]) -> list[str]:
  values = []
  for column in columns:
    found = [cell.figures[column] for cell in cells if column in cell.figures]
    values.append(
      show(column, float(np.mean(found)), min(found), max(found))
      if found
      else ""
    )
  minutes = np.mean([sum(cell.seconds.values()) for cell in cells]) / 60
  return [cells[0].label, f"mean of {len(cells)}", *values, f"{minutes:.1f}"]


def _value(figures: dict[str, Any], column: str) -> str:
  if column not in figures:
    return ""
  interval = figures.get("intervals", {}).get(column)
  return show(column, figures[column], *(interval or ()))


def show(name: str, value: float, low: float = 0.0, high: float = 0.0) -> str:
  """Returns a figure with an interval as a cell of a table."""
  scale = unit(name)
  bounds = f" ({scale * low:.1f}-{scale * high:.1f})" if high > low else ""
  return f"{scale * value:.1f}{bounds}"


def unit(name: str) -> float:
  """Returns what a figure is multiplied by to be shown: shares, in percent."""
  return 1.0 if name == _NATS else 100.0


def _minutes(cell: Cell) -> str:
  return f"{sum(cell.seconds.values()) / 60:.1f}"
