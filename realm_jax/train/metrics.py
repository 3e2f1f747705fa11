# SPDX-License-Identifier: Apache-2.0
"""Scalars of a run: TensorBoard events and `metrics.jsonl`, the same ones."""

from collections.abc import Mapping
import contextlib
import json
import pathlib

import numpy as np
import tensorboardX

from realm_jax import files
from realm_jax.shapes import Sums
from realm_jax.train.spool import Spool

METRICS_FILE = "metrics.jsonl"


class Means:
  """Adds up (sum, count) pairs, so that no mean of means is ever taken."""

  def __init__(self) -> None:
    self._sums: dict[str, np.ndarray] = {}

  def add(self, sums: Sums) -> None:
    """Adds one step's sums; the arrays must be ready on the host."""
    for name, pair in sums.items():
      added = np.asarray(pair, np.float64)
      self._sums[name] = self._sums.get(name, np.zeros(2)) + added

  def pop(self) -> dict[str, float]:
    """Returns the means since the last call; a count of 0 gives no entry."""
    means = {
      name: float(total / count)
      for name, (total, count) in self._sums.items()
      if count
    }
    self._sums.clear()
    return means


class MetricLog:
  """Writes scalars of a workdir; a restart drops what it will write again."""

  def __init__(self, workdir: str, first_step: int) -> None:
    """Use it as a context manager."""
    self._stack = contextlib.ExitStack()
    self._spool = self._stack.enter_context(Spool(workdir))
    self._spool.fetch(METRICS_FILE)
    path = self._spool.folder / METRICS_FILE
    _truncate_after(path, first_step)
    self._lines = self._stack.enter_context(path.open("a", encoding="utf-8"))
    self._events = self._stack.enter_context(
      tensorboardX.SummaryWriter(
        str(self._spool.folder),
        purge_step=first_step + 1 if first_step else None,
      )
    )

  def __enter__(self) -> "MetricLog":
    return self

  def __exit__(self, *_: object) -> None:
    self._stack.close()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line {"step", name: value, ...} and the same events."""
    self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
    self._lines.flush()
    for name, value in scalars.items():
      self._events.add_scalar(name, value, step)
    self._spool.changed()


def _truncate_after(path: pathlib.Path, step: int) -> None:
  """Drops the lines of later steps and a line cut short by a kill."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue
    if record["step"] <= step:
      kept.append(line)
  files.write_whole(path, "".join(kept))
