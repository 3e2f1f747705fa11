# SPDX-License-Identifier: Apache-2.0
"""Means over questions, with what chance leaves open (percentile bootstrap)."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Shaped
import numpy as np

_RESAMPLES = 2000
_AT_ONCE = 100  # Resamples drawn together, to bound memory.
_SEED = 0  # The same questions and answers give the same interval.
INTERVALS = "intervals"


def summarise(
  columns: Mapping[str, Shaped[np.ndarray, " n"]],
) -> dict[str, Any]:
  """Returns the mean of each column, and 95% intervals for all of them.

  Args:
    columns: a figure's name to its value for each of n examples; NaN where an
      example does not count. A column of nothing else is left out.

  Returns:
    {name: mean, ..., "intervals": {name: [low, high], ...}}.

  Raises:
    ValueError: there is no example.
  """
  kept = {
    name: np.asarray(column, np.float64)
    for name, column in columns.items()
    if not np.isnan(column).all() or not len(column)
  }
  if not kept:
    return {INTERVALS: {}}
  values = np.stack(list(kept.values()), axis=1)
  if not len(values):
    raise ValueError("Figures need at least one example, got none.")
  means = np.nanmean(values, axis=0).tolist()
  bounds = intervals(values).tolist()
  return {
    **dict(zip(kept, means, strict=True)),
    INTERVALS: dict(zip(kept, bounds, strict=True)),
  }


def intervals(
  values: Float[np.ndarray, "n m"],
  *,
  resamples: int = _RESAMPLES,
  seed: int = _SEED,
) -> Float[np.ndarray, "m 2"]:
  """Returns the 2.5th and 97.5th percentile of each column's resampled mean.

  Whole examples are drawn, so that all columns see the same resamples.

  Args:
    values: of n examples; NaN where one does not count. In each column one
      counts at least.
    resamples: of n examples each.
    seed: of the draws.
  """
  counted = ~np.isnan(values)
  summands = np.where(counted, values, 0.0)
  rng = np.random.default_rng(seed)
  means = []
  for start in range(0, resamples, _AT_ONCE):
    draws = _draw(rng, min(_AT_ONCE, resamples - start), len(values))
    weights = draws @ counted.astype(np.float64)
    # A resample without any of the few that count in a column has no mean.
    weights[weights == 0.0] = np.nan
    means.append(draws @ summands / weights)
  return np.nanpercentile(np.concatenate(means), (2.5, 97.5), axis=0).T


def _draw(
  rng: np.random.Generator, number: int, size: int
) -> Float[np.ndarray, "r n"]:
  """Returns how often each example is in each resample."""
  drawn = rng.integers(0, size, (number, size))
  drawn += np.arange(number)[:, None] * size
  counts = np.bincount(drawn.ravel(), minlength=number * size)
  return counts.reshape(number, size).astype(np.float64)
