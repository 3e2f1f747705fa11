# SPDX-License-Identifier: Apache-2.0
import dataclasses

from launch.figures import Cell, to_markdown


def cell(row, seed, seconds, **figures):
  return Cell(
    row=row, label=row.upper(), seed=seed, seconds=seconds, figures=figures
  )


def test_a_table_shows_percent_intervals_seeds_means_and_minutes():
  cells = [
    cell("a", 0, {"ict": 60.0, "evaluation": 30.0}, exact_match=0.5, step=3),
    cell(
      "b",
      0,
      {"ict": 60.0},
      exact_match=0.25,
      passage_recall_at_5=0.875,
      intervals={"exact_match": [0.2, 0.3]},
    ),
    cell("a", 1, {"ict": 120.0}, exact_match=0.51),
  ]
  assert to_markdown(cells).splitlines() == [
    "|  | seed | EM | R@5 | minutes |",
    "| --- | --- | ---: | ---: | ---: |",
    "| A | 0 | 50.0 |  | 1.5 |",
    "| A | 1 | 51.0 |  | 2.0 |",
    "| A | mean of 2 | 50.5 (50.0-51.0) |  | 1.8 (1.5-2.0) |",
    "| B | 0 | 25.0 (20.0-30.0) | 87.5 | 1.0 |",
  ]


def test_utility_is_in_nats_and_all_else_in_percent():
  figures = {"open_book_exact_match": 0.5, "retrieval_utility": 3.25}
  intervals = {"retrieval_utility": [3.0, 3.5]}
  lines = to_markdown([cell("a", 0, {}, intervals=intervals, **figures)])
  assert lines.splitlines()[0::2] == [
    "|  | seed | filled in | utility, nats | minutes |",
    "| A | 0 | 50.0 | 3.2 (3.0-3.5) | 0.0 |",
  ]


def test_gains_over_another_row_are_a_table_of_their_own():
  cells = [
    cell("a", 0, {}, exact_match=0.5),
    cell("b", 0, {}, exact_match=0.52),
    cell("b", 1, {}, exact_match=0.49),
  ]
  cells[1:] = [
    dataclasses.replace(
      each,
      against="a",
      gains={"exact_match": gain, "intervals": {"exact_match": interval}},
    )
    for each, gain, interval in zip(
      cells[1:], (0.02, -0.01), ([0.01, 0.03], [-0.025, 0.0]), strict=True
    )
  ]
  _, _, gains = to_markdown(cells).partition("\n\n")
  assert gains.splitlines() == [
    "|  | seed | EM |",
    "| --- | --- | ---: |",
    "| B, beyond: A | 0 | +2.0 (+1.0 to +3.0) |",
    "| B, beyond: A | 1 | -1.0 (-2.5 to +0.0) |",
    "| B, beyond: A | mean of 2 | +0.5 (-1.0 to +2.0) |",
  ]
