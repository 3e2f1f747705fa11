# SPDX-License-Identifier: Apache-2.0
r"""Which of table 2's orderings a finished table shows, and a plot of it.

    python -m experiments.ablations.orderings --directory=ablations

writes `orderings.md` and `ablations.png` there. An ordering holds by a figure
where every seed's better run is above the worse one of the same seed.
"""

import argparse
from collections.abc import Iterator, Sequence
import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from experiments.ablations import plot
from experiments.ablations.factbook import PRETRAINED
from launch.figures import Cell, join, show, unit
from realm_jax import files

FIGURES = {
  "open_book_exact_match": "filled in, %",
  "passage_recall_at_5": "recall@5, %",
  "retrieval_utility": "utility, nats",
}


class Ordering(NamedTuple):
  """Two rows, of which the paper found the first to be better."""

  claim: str
  better: str
  worse: str


ORDERINGS = (
  Ordering("salient spans > random spans", "realm", "random_spans"),
  Ordering("random spans > random tokens", "random_spans", "random_tokens"),
  Ordering("fresh index > 30 times staler", "realm", "stale"),
  Ordering("REALM > the cloze task's retriever", "realm", "ict_retriever"),
)


def differences(
  cells: Sequence[Cell], ordering: Ordering, figure: str
) -> np.ndarray:
  """Returns better - worse for each seed that both rows have."""
  values = {
    (cell.row, cell.seed): cell.figures[figure]
    for cell in cells
    if figure in cell.figures
  }
  seeds = sorted({seed for row, seed in values if row == ordering.better})
  return np.array(
    [
      values[ordering.better, seed] - values[ordering.worse, seed]
      for seed in seeds
      if (ordering.worse, seed) in values
    ]
  )


def to_markdown(cells: Sequence[Cell]) -> str:
  """Returns a line for each ordering: mean differences, and their range."""
  lines = [["", *FIGURES.values()], ["---"] + ["---:"] * len(FIGURES)]
  for ordering in ORDERINGS:
    shown = [_shown(cells, ordering, name) for name in FIGURES]
    lines.append([ordering.claim, *shown])
  return join(lines)


def _shown(cells: Sequence[Cell], ordering: Ordering, figure: str) -> str:
  found = differences(cells, ordering, figure)
  if not len(found):
    return ""
  shown = show(figure, found.mean(), found.min(), found.max(), signed=True)
  return f"{shown}, {(found > 0).sum()} of {len(found)}"


def _panels(cells: Sequence[Cell]) -> Iterator[plot.Panel]:
  """Yields what is drawn: the pre-trained rows by each figure."""
  for name, title in FIGURES.items():
    rows = {
      label: [
        _interval(cell, name)
        for cell in cells
        if cell.row == row and name in cell.figures
      ]
      for row, label in PRETRAINED.items()
    }
    yield plot.Panel(
      title, {row: found for row, found in rows.items() if found}
    )


def _interval(cell: Cell, name: str) -> plot.Interval:
  low, high = cell.figures["intervals"][name]
  scale = unit(name)
  return plot.Interval(
    value=scale * cell.figures[name], low=scale * low, high=scale * high
  )


def main(argv: list[str]) -> int:
  """Writes and prints the orderings; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--directory", type=pathlib.Path, default="ablations")
  directory = parser.parse_args(argv).directory
  table = directory / "table.json"
  if not table.exists():
    print(f"{table} does not exist: run `make ablations`.", file=sys.stderr)
    return 1
  cells = [Cell(**cell) for cell in json.loads(table.read_text())]
  shown = to_markdown(cells)
  files.write_whole(directory / "orderings.md", f"{shown}\n")
  files.write_whole(
    directory / "ablations.png", plot.draw(list(_panels(cells)))
  )
  print(shown)
  print(f"Plot: {directory / 'ablations.png'}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
