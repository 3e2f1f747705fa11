# SPDX-License-Identifier: Apache-2.0
"""Reads back what a run wrote: `metrics.jsonl`, also of a killed run."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from etils import epath
import numpy as np

from realm_jax.data.jsonl import parse_object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """One metric over the run."""

  steps: np.ndarray  # i64[n], ascending.
  values: np.ndarray  # f64[n]

  def __len__(self) -> int:
    return len(self.steps)


def read_objects(path: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number from 1, object) of a JSON Lines file.

  A last line without its newline that does not parse is what a killed
  process leaves: it is skipped.

  Raises:
    ValueError: another line that holds no JSON object; names file and line.
  """
  lines = path.read_bytes().split(b"\n")
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      value = parse_object(line, f"{path}:{number}")
    except ValueError:
      if number == len(lines):
        return
      raise
    yield number, value


def read_metrics(path: epath.Path) -> dict[str, Series]:
  """Each metric's values by step; empty where the file is not there yet.

  A resumed run logs the steps since its checkpoint a second time: of two
  values for one step the later line's is taken.

  Raises:
    ValueError: a malformed line, by file and line.
  """
  if not path.exists():
    return {}
  found: dict[str, dict[int, float]] = {}
  for number, line in read_objects(path):
    step = line.pop("step", None)
    if type(step) is not int:
      raise ValueError(f"{path}:{number}: 'step' must be an int, got {step!r}.")
    for name, value in line.items():
      if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
          f"{path}:{number}: {name!r} must be a number, got {value!r}."
        )
      found.setdefault(name, {})[step] = float(value)
  return {name: _series(by_step) for name, by_step in found.items()}


def _series(by_step: dict[int, float]) -> Series:
  steps = sorted(by_step)
  return Series(
    steps=np.array(steps), values=np.array([by_step[s] for s in steps])
  )
