# SPDX-License-Identifier: Apache-2.0
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
    "| A | mean of 2 | 50.5 (50.0-51.0) |  | 1.8 |",
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
