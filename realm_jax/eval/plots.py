# SPDX-License-Identifier: Apache-2.0
"""The report's plots, drawn without a display from a run's metrics."""

from collections.abc import Mapping
import dataclasses
import io
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
import numpy as np

from realm_jax.eval.metrics_file import Series

COLORS = ("#2563a8", "#d9782d", "#3b8f5a")
GREY = "#8a8f98"
# More points than this cannot be told apart: a smoothed line joins them.
_SMOOTH_FROM = 24
_SWAPS = "swap/first_step"
_CHECKPOINTS = "swap/checkpoint_step"
_AGE = "index/staleness_steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """One plot: which metrics, and how to read them."""

  name: str  # Of the PNG file.
  title: str
  unit: str  # The y axis' label.
  metrics: Mapping[str, str]  # Metric -> its label in the legend.
  scale: float = 1.0
  style: Literal["smooth", "points", "line"] = "smooth"
  from_zero: bool = False
  top: float | None = None  # Of the y axis; None to fit.
  swaps: bool = False  # Mark where another index took over.


PANELS = (
  Panel(
    name="loss",
    title="Training loss",
    unit="nats",
    metrics={"loss": "loss"},
  ),
  Panel(
    name="retrieval_utility",
    title="Retrieval utility: likelihood gained over the null document",
    unit="nats a span",
    metrics={"retrieval_utility": "retrieval utility"},
    swaps=True,
  ),
  Panel(
    name="recall",
    title="Held-out retrieval, searched with each index version",
    unit="share of queries with a hit",
    metrics={
      "probe/recall_at_1": "recall@1",
      "probe/recall_at_5": "recall@5",
      "probe/recall_at_20": "recall@20",
    },
    style="points",
    from_zero=True,
    top=1.02,
  ),
  Panel(
    name="null_mass",
    title="Null document: how much the retriever trusts no passage",
    unit="share of p(z | x)",
    metrics={"retrieval/null_mass": "null document"},
    from_zero=True,
    swaps=True,
  ),
  Panel(
    name="own_words",
    title="Leak: candidates that hold the masked text's own words",
    unit="share of candidates",
    metrics={"retrieval/own_words": "own words"},
    from_zero=True,
    swaps=True,
  ),
  Panel(
    name="entropy",
    title="Spread of p(z | x) over the candidates",
    unit="nats",
    metrics={"retrieval/entropy": "entropy"},
    from_zero=True,
    swaps=True,
  ),
  Panel(
    name="overlap",
    title="Stale retrieval against exact retrieval with fresh embeddings",
    unit="overlap@20",
    metrics={"swap/overlap_at_k": "overlap"},
    style="points",
    from_zero=True,
    top=1.02,
    swaps=True,
  ),
  Panel(
    name="staleness",
    title="Age of the index in use",
    unit="steps since its checkpoint",
    metrics={_AGE: "index age"},
    style="line",
    from_zero=True,
    swaps=True,
  ),
  Panel(
    name="wait",
    title="Wait for retrieval",
    unit="milliseconds a step",
    metrics={"retrieval/wait_seconds": "wait"},
    scale=1e3,
    from_zero=True,
    swaps=True,
  ),
  Panel(
    name="step_time",
    title="Time of a training step",
    unit="milliseconds",
    metrics={"step_seconds": "step"},
    scale=1e3,
    from_zero=True,
  ),
)


def draw(panel: Panel, metrics: Mapping[str, Series]) -> bytes | None:
  """The panel as a PNG, or None where the run has none of its metrics."""
  present = {
    label: metrics[name]
    for name, label in panel.metrics.items()
    if name in metrics
  }
  if not present:
    return None
  figure = Figure(figsize=(6.0, 2.9))
  # Fixed margins: plots under one another share their axes' edges.
  figure.subplots_adjust(left=0.14, right=0.97, top=0.89, bottom=0.17)
  axes = figure.add_subplot()
  for color, (label, series) in zip(COLORS, present.items(), strict=False):
    _line(axes, series, panel, label, color)
  if panel.swaps and _SWAPS in metrics:
    # Step 0 is where the run began, with its first index.
    for step in metrics[_SWAPS].values[metrics[_SWAPS].values > 0]:
      axes.axvline(step, color=GREY, lw=0.8, ls=(0, (3, 3)))
  axes.set_xlim(0, max(series.steps[-1] for series in metrics.values()))
  axes.set_ylim(bottom=0.0 if panel.from_zero else None, top=panel.top)
  _finish(axes, panel)
  if len(present) > 1:
    axes.legend(loc="best", frameon=False, fontsize=8.5)
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=180)
  return buffer.getvalue()


def index_age(metrics: Mapping[str, Series]) -> dict[str, Series]:
  """The metrics with the index's age at every swap, as {name: series}.

  What is logged is a mean over many steps, which flattens the saw's teeth.
  Between two swaps the age grows by one a step, so the swaps tell all of it.
  """
  if _SWAPS not in metrics or _CHECKPOINTS not in metrics:
    return dict(metrics)
  swaps = metrics[_SWAPS].values.astype(int)
  built_from = metrics[_CHECKPOINTS].values.astype(int)
  last = max(series.steps[-1] for series in metrics.values())
  until = np.append(swaps[1:], last) - 1  # The last step that each served.
  steps = np.stack([swaps, until], axis=1)
  ages = steps - built_from[:, None]
  before = metrics.get(_AGE)
  return {**metrics, _AGE: _joined(before, steps.ravel(), ages.ravel())}


def _joined(
  before: Series | None, steps: np.ndarray, ages: np.ndarray
) -> Series:
  """What was logged before the first swap, then the teeth."""
  if before is not None:
    early = before.steps < steps[0]
    steps = np.append(before.steps[early], steps)
    ages = np.append(before.values[early], ages)
  return Series(steps=steps, values=ages.astype(float))


def _line(
  axes: Axes, series: Series, panel: Panel, label: str, color: str
) -> None:
  values = series.values * panel.scale
  if panel.style != "smooth" or len(values) < _SMOOTH_FROM:
    marker = "" if panel.style == "line" else "o"
    axes.plot(
      series.steps,
      values,
      color=color,
      marker=marker,
      ms=3.5,
      label=label,
      clip_on=False,  # Points on the edge are drawn whole.
    )
    return
  axes.plot(series.steps, values, color=color, alpha=0.25, lw=0.9)
  axes.plot(series.steps, smooth(values), color=color, label=label)


def smooth(values: np.ndarray) -> np.ndarray:
  """A centred moving average over a fifteenth of the run, NaN left out.

  At the ends the window is cut short, so the first and the last point are
  means of what is there and not of made-up zeros.
  """
  half = max(1, len(values) // 30)
  finite = np.isfinite(values)
  window = np.ones(2 * half + 1)
  total = np.convolve(np.where(finite, values, 0.0), window, "same")
  count = np.convolve(finite.astype(float), window, "same")
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _finish(axes: Axes, panel: Panel) -> None:
  dress(axes, panel.title, grid="y")
  axes.set_xlabel("training step", fontsize=9, color="#444")
  axes.set_ylabel(panel.unit, fontsize=9, color="#444")
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
  axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def dress(axes: Axes, title: str, grid: Literal["x", "y"]) -> None:
  """Gives axes the look that all plots have, lines along one of them."""
  axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
  axes.tick_params(labelsize=8.5, color=GREY, labelcolor="#444")
  axes.grid(axis=grid, color="#e6e8eb", lw=0.7)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(GREY)
