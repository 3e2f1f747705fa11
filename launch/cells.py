# SPDX-License-Identifier: Apache-2.0
"""`realm table`: trains what a table's rows build on, scores them, shows it.

    <workdir>/stages/<stage>-<seed>/   a stage's workdir, for all rows
             /rows/<row>-<seed>…       its predictions and figures
             /table.md, table.json     the rows that are done

The same command goes on after a kill: what is done is not done again, and a
stage goes on from its last checkpoint.
"""

from collections.abc import Iterator
import dataclasses
import json
import pathlib
import signal
import sys
from typing import Any

from etils import epath

from launch import tasks
from launch.figures import Cell, to_markdown
from launch.table import STAGE, Row, Table
from launch.tasks import Task
from realm_jax import files
from realm_jax.config import RunConfig
from realm_jax.eval.differences import differences
from realm_jax.train.stop import STOPPED_EXIT_CODE


class Cells:
  """A table's tasks in one directory."""

  def __init__(self, table: Table, workdir: str) -> None:
    """Runs nothing yet.

    Raises:
      ValueError: what was trained there has another config, or the directory
        is a URL.
    """
    if files.is_url(workdir):
      raise ValueError(
        f"{workdir} is a URL, and a table's stages run on this machine: give "
        "a path."
      )
    self._table, self._workdir = table, pathlib.Path(workdir)
    self._stages = {
      (name, seed): tasks.training(
        self._resolved(run, self._seed(name, seed)), self._stage(name, seed)
      )
      for seed in table.seeds
      for name, run in table.stages.items()
    }

  def run(self) -> list[Cell]:
    """Runs what is not done; returns all cells, seed by seed.

    Raises:
      SystemExit: a command failed or was stopped; with its exit code.
    """
    cells: list[Cell] = []
    with tasks.alone(self._workdir) as held:
      for seed in self._table.seeds:
        for row in self._table.rows:
          if seed not in self._table.seeds_of(row):
            continue
          for task in self._needed(row, seed):
            task.run(held)
          cells.append(self._cell(row, seed))
          self._show(cells)
    return cells

  def train(self, name: str, seed: int, workdir: pathlib.Path) -> None:
    """Trains one stage in a workdir of its own, from the table's others.

    Raises:
      ValueError: another config was trained there.
      SystemExit: as `run` does.
    """
    last = tasks.training(
      self._resolved(self._table.stages[name], seed),
      workdir,
      record=self._workdir / "stages" / "last.json",
    )
    with tasks.alone(self._workdir) as held:
      for stage in self._table.chain(name)[:-1]:
        self._stages[stage, seed].run(held)
      last.run(held)

  def _resolved(self, run: RunConfig, seed: int) -> RunConfig:
    def path(start: str) -> str:
      if not start.startswith(STAGE):
        return start
      name, at, step = start.removeprefix(STAGE).partition("@")
      return f"{self._stage(name, seed)}{at}{step}"

    init = dataclasses.replace(
      run.init,
      retriever=path(run.init.retriever),
      encoder=path(run.init.encoder),
    )
    return dataclasses.replace(run, seed=seed, init=init)

  def _seed(self, stage: str, seed: int) -> int:
    return self._table.seeds[0] if stage in self._table.once else seed

  def _stage(self, name: str, seed: int) -> pathlib.Path:
    return self._workdir / "stages" / f"{name}-{self._seed(name, seed)}"

  def _needed(self, row: Row, seed: int) -> Iterator[Task]:
    for stage in self._table.chain(row.stage):
      yield self._stages[stage, seed]
    if indexing := self._indexing(row, seed):
      yield indexing
    yield self._evaluation(row, seed)

  def _indexing(self, row: Row, seed: int) -> Task | None:
    run = self._table.stages[row.stage]
    if not run.has_retriever or run.searches:
      return None
    return tasks.indexing(self._stage(row.stage, seed))

  def _evaluation(self, row: Row, seed: int) -> Task:
    return tasks.evaluating(
      self._stage(row.stage, seed),
      self._stages[row.stage, seed],
      self._table.data_of(row),
      self._predictions(row.name, seed),
      row.flags,
    )

  def _predictions(self, row: str, seed: int) -> pathlib.Path:
    return self._workdir / "rows" / f"{row}-{seed}.jsonl"

  def _cell(self, row: Row, seed: int) -> Cell:
    evaluation = self._evaluation(row, seed)
    seconds = {
      stage: self._stages[stage, seed].seconds
      for stage in self._table.chain(row.stage)
    }
    if indexing := self._indexing(row, seed):
      seconds["index"] = indexing.seconds
    return Cell(
      row=row.name,
      label=row.label,
      seed=seed,
      seconds={**seconds, "evaluation": evaluation.seconds},
      figures=json.loads(evaluation.made.read_text(encoding="utf-8")),
      against=row.against,
      gains=self._gains(row, seed),
    )

  def _gains(self, row: Row, seed: int) -> dict[str, Any]:
    if not row.against:
      return {}
    ours, theirs = (
      epath.Path(self._predictions(name, seed))
      for name in (row.name, row.against)
    )
    return differences(ours, theirs)

  def _show(self, cells: list[Cell]) -> None:
    found = json.dumps([dataclasses.asdict(cell) for cell in cells], indent=2)
    files.write_whole(self._workdir / "table.json", f"{found}\n")
    files.write_whole(self._workdir / "table.md", f"{to_markdown(cells)}\n")


def run_table(table: Table, workdir: str) -> None:
  """Runs a table and prints it; SIGTERM stops what runs, saved.

  Raises:
    ValueError: see `Cells`.
    SystemExit: as `Cells.run` says; 75 after SIGTERM.
  """
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED_EXIT_CODE))
  print(to_markdown(Cells(table, workdir).run()))
