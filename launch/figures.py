# SPDX-License-Identifier: Apache-2.0
"""The cells of a table, and how they are shown."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
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
  "minutes": "minutes",
}
_NO_SHARES = ("retrieval_utility", "minutes")
_Show = Callable[..., str]  # As `show`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """A row with one seed."""

  row: str
  label: str
  seed: int
  seconds: dict[str, float]  # Of each stage up to the row's, and what follows.
  figures: dict[str, Any]  # As `realm evaluate` writes them.
  against: str = ""  # An earlier row that it is compared with, and ...
  # ... what it scores beyond that one, as `eval.differences` tells.
  gains: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def minutes(self) -> float:
    """Of all that the row needs, also where it shares it with others."""
    return sum(self.seconds.values()) / 60


def to_markdown(cells: Sequence[Cell]) -> str:
  """Returns a line for each row and seed, shares in percent, 95% intervals.

  A row of several seeds gets another line, with means and ranges. A second
  table has what rows score beyond those that they are compared with.
  """
  tables = [
    _table(
      [
        dataclasses.replace(
          cell, figures={**cell.figures, "minutes": cell.minutes}
        )
        for cell in cells
      ],
      show,
    )
  ]
  labels = {cell.row: cell.label for cell in cells}
  gains = [
    dataclasses.replace(
      cell,
      label=f"{cell.label}, beyond: {labels[cell.against]}",
      figures=cell.gains,
    )
    for cell in cells
    if cell.against
  ]
  if gains:
    tables.append(_table(gains, functools.partial(show, signed=True)))
  return "\n\n".join(tables)


def _table(cells: Sequence[Cell], show_as: _Show) -> str:
  columns = [c for c in _COLUMNS if any(c in cell.figures for cell in cells)]
  heads = ["", "seed", *(_COLUMNS[c] for c in columns)]
  lines = [heads, ["---"] * 2 + ["---:"] * len(columns)]
  for row in dict.fromkeys(cell.row for cell in cells):
    of_row = [cell for cell in cells if cell.row == row]
    lines += [_line(cell, columns, show_as) for cell in of_row]
    if len(of_row) > 1:
      lines.append(_mean_line(of_row, columns, show_as))
  return join(lines)


def join(lines: Iterable[Sequence[str]]) -> str:
  """Returns the cells of each line as Markdown; the second is of dashes."""
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(cell: Cell, columns: Sequence[str], show_as: _Show) -> list[str]:
  values = [_value(cell.figures, column, show_as) for column in columns]
  return [cell.label, str(cell.seed), *values]


def _mean_line(
  cells: Sequence[Cell], columns: Sequence[str], show_as: _Show
) -> list[str]:
  values = []
  for column in columns:
    found = [cell.figures[column] for cell in cells if column in cell.figures]
    values.append(
      show_as(column, float(np.mean(found)), min(found), max(found))
      if found
      else ""
    )
  return [cells[0].label, f"mean of {len(cells)}", *values]


def _value(figures: dict[str, Any], column: str, show_as: _Show) -> str:
  if column not in figures:
    return ""
  interval = figures.get("intervals", {}).get(column)
  return show_as(column, figures[column], *(interval or ()))


def show(
  name: str,
  value: float,
  low: float = 0.0,
  high: float = 0.0,
  *,
  signed: bool = False,
) -> str:
  """Returns a figure with an interval as a cell of a table."""
  form, to = ("{:+.1f}", " to ") if signed else ("{:.1f}", "-")
  value, low, high = (unit(name) * each for each in (value, low, high))
  bounds = f" ({form.format(low)}{to}{form.format(high)})" if high > low else ""
  return form.format(value) + bounds


def unit(name: str) -> float:
  """Returns what a figure is multiplied by to be shown: shares, in percent."""
  return 1.0 if name in _NO_SHARES else 100.0
