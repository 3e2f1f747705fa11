# SPDX-License-Identifier: Apache-2.0
"""What a table compares: rows that each end in a stage, and the stages.

An experiment file returns `Table(...).to_config_dict()`, so that flags can
override each field of each stage.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import ml_collections

from realm_jax import config
from realm_jax.config import RunConfig

# In a stage's init.retriever and init.encoder: the stage of that name, trained
# with the same seed.
STAGE = "stage:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One line of a table: what a stage scores on the table's data."""

  name: str
  label: str  # For people.
  stage: str  # Its name in `Table.stages`.
  flags: tuple[str, ...] = ()  # Of `realm evaluate`, beyond the usual ones.
  seeds: tuple[int, ...] = ()  # Those of the table's that it has; () for all.
  against: str = ""  # An earlier row to compare it with, question by question.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Rows times seeds; a stage that several rows build on is trained once."""

  stages: Mapping[str, RunConfig]
  rows: tuple[Row, ...]  # In the order in which they are made and shown.
  questions: str = ""  # JSONL that rows are scored on, ...
  texts: str = ""  # ... but for those of pre-training, where there is this.
  seeds: tuple[int, ...] = (0,)
  once: tuple[str, ...] = ()  # Stages that all seeds share: the first trains.

  def __post_init__(self) -> None:
    if not self.rows or not self.seeds:
      raise ValueError("A table needs at least one row and one seed.")
    names = [row.name for row in self.rows]
    if len(names) > len(set(names)):
      raise ValueError(f"Two rows have one name: {names}.")
    for name in (*self.stages, *names):
      # They name directories.
      if not name.replace("-", "_").isidentifier():
        raise ValueError(
          f"{name!r} names a stage or a row: use letters, digits, - and _."
        )
    for row in self.rows:
      if row.stage not in self.stages:
        raise ValueError(_unknown(row.stage, f"Row {row.name!r}", self.stages))
      self.chain(row.stage)
      if not any(self.data_of(row).values()):
        raise ValueError(
          f"Row {row.name!r} is scored on nothing: questions or texts must "
          f"name a JSONL file, got {self.questions!r} and {self.texts!r}."
        )
      if not set(row.seeds) <= set(self.seeds):
        raise ValueError(
          f"Row {row.name!r} has the seeds {row.seeds}, and the table "
          f"{self.seeds}."
        )
    for name in self.once:
      self._check_shared(name)
    for number, row in enumerate(self.rows):
      if row.against:
        self._check_compared(row, self.rows[:number])

  def _check_shared(self, name: str) -> None:
    if name not in self.stages:
      raise ValueError(_unknown(name, "once", self.stages))
    others = [stage for stage in self.chain(name) if stage not in self.once]
    if others:
      raise ValueError(
        f"once names {name!r}, which starts from {others}: name those as well."
      )

  def _check_compared(self, row: Row, earlier: tuple[Row, ...]) -> None:
    others = {other.name: other for other in earlier}
    if row.against not in others:
      raise ValueError(
        f"Row {row.name!r} is compared with {row.against!r}, and the rows "
        f"before it are {list(others)}."
      )
    other = others[row.against]
    if not set(self.seeds_of(row)) <= set(self.seeds_of(other)):
      raise ValueError(
        f"Row {row.name!r} has the seeds {self.seeds_of(row)}, and "
        f"{other.name!r}, which it is compared with, {self.seeds_of(other)}."
      )
    for each in (row, other):
      if "texts" in self.data_of(each):
        raise ValueError(
          f"Row {each.name!r} is scored on texts, and rows are compared by "
          "their questions: leave out against or texts."
        )

  def data_of(self, row: Row) -> dict[str, str]:
    """Returns the flag of `realm evaluate` that says what a row is scored on.

    Texts where there are some, but for a reader, which fills in no masks.
    """
    reads = self.stages[row.stage].stage == "openqa"
    if self.texts and not reads:
      return {"texts": self.texts}
    return {"questions": self.questions}

  def seeds_of(self, row: Row) -> tuple[int, ...]:
    """Returns the seeds that a row is scored with."""
    return row.seeds or self.seeds

  def chain(self, stage: str) -> tuple[str, ...]:
    """Returns the stages to train for one, in order, itself the last.

    Raises:
      ValueError: a stage that is unknown, or starts from itself.
    """
    found: list[str] = []
    self._append(stage, found, above=())
    return tuple(found)

  def _append(
    self, stage: str, found: list[str], above: tuple[str, ...]
  ) -> None:
    if stage in above:
      circle = " <- ".join((*above, stage))
      raise ValueError(f"Stages start from one another: {circle}.")
    for source in sources(self.stages[stage]):
      if source not in self.stages:
        raise ValueError(_unknown(source, f"Stage {stage!r}", self.stages))
      self._append(source, found, (*above, stage))
    if stage not in found:
      found.append(stage)

  def to_config_dict(self) -> ml_collections.ConfigDict:
    """The form that experiment files return."""
    return ml_collections.ConfigDict(dataclasses.asdict(self))


def parse(raw: ml_collections.ConfigDict) -> Table:
  """Checks and freezes what an experiment file returned.

  Raises:
    ValueError: an unknown key, a wrong type, or a broken rule.
  """
  found = raw.to_dict()
  names = {field.name for field in dataclasses.fields(Table)}
  if set(found) != names:
    raise ValueError(
      f"A table has the keys {sorted(names)}, and this has {sorted(found)}."
    )
  return Table(
    stages={
      name: _named(name, config.parse, each)
      for name, each in found["stages"].items()
    },
    rows=tuple(
      _named(each.get("name", "A row"), _to_row, each) for each in found["rows"]
    ),
    questions=found["questions"],
    texts=found["texts"],
    seeds=tuple(found["seeds"]),
    once=tuple(found["once"]),
  )


def sources(run: RunConfig) -> Iterator[str]:
  """Yields the stages that a stage starts from."""
  for start in (run.init.retriever, run.init.encoder):
    if start.startswith(STAGE):
      yield start.removeprefix(STAGE).partition("@")[0]


def _to_row(raw: dict[str, Any]) -> Row:
  row = Row(**raw)
  return dataclasses.replace(
    row, flags=tuple(row.flags), seeds=tuple(row.seeds)
  )


def _named(name: str, make: Any, raw: Any) -> Any:
  try:
    return make(raw)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name}: {error}") from error


def _unknown(stage: str, where: str, stages: Mapping[str, RunConfig]) -> str:
  return f"{where} names the stage {stage!r}, and there are {sorted(stages)}."
