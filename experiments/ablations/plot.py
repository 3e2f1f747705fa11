# SPDX-License-Identifier: Apache-2.0
"""Rows of a table as points with intervals, one for each seed."""

from collections.abc import Mapping, Sequence
import io
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from realm_jax.eval import plots

_FIRST, _OTHERS = plots.COLORS[:2]
_SPREAD = 0.36  # Of the seeds around their row, in rows.


class Interval(NamedTuple):
  """A figure of one seed."""

  value: float
  low: float  # 95%, over the examples.
  high: float


class Panel(NamedTuple):
  """One figure of all rows."""

  title: str
  rows: Mapping[str, Sequence[Interval]]  # Label -> its seeds, first row first.


def draw(panels: Sequence[Panel]) -> bytes:
  """Returns a PNG: a panel beside the other, a row under the other.

  The dotted line is the first row's mean, with which all are compared.
  """
  height = 1.2 + 0.42 * max(len(panel.rows) for panel in panels)
  figure = Figure(figsize=(3.1 * len(panels) + 2.2, height))
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for place, panel in zip(axes, panels, strict=True):
    _panel(place, panel)
  axes[0].invert_yaxis()
  figure.tight_layout()
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=160)
  return buffer.getvalue()


def _panel(axes: Axes, panel: Panel) -> None:
  for row, seeds in enumerate(panel.rows.values()):
    values = np.array([[one.value, one.low, one.high] for one in seeds]).T
    places = row + np.linspace(-1, 1, len(seeds) + 2)[1:-1] * _SPREAD
    color = _OTHERS if row else _FIRST
    mean = values[0].mean()
    axes.hlines(places, values[1], values[2], color=color, lw=1.2, alpha=0.6)
    axes.plot(values[0], places, "o", color=color, ms=3.5)
    axes.vlines(mean, row - 0.4, row + 0.4, color=color, lw=2.0)
    if row == 0:
      axes.axvline(mean, color=plots.GREY, lw=0.9, ls=(0, (1, 2)))
  axes.set_yticks(range(len(panel.rows)), list(panel.rows))
  plots.dress(axes, panel.title, grid="x")
