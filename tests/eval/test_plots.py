# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
from PIL import Image
import pytest

from realm_jax.eval import plots
from realm_jax.eval.metrics_file import Series


def _series(steps, values):
  return Series(steps=np.array(steps), values=np.array(values, float))


@pytest.mark.parametrize("panel", plots.PANELS, ids=lambda panel: panel.name)
@pytest.mark.parametrize("length", [1, 5, 60])
def test_every_panel_is_drawn_as_a_png_of_one_size(panel, length):
  steps = np.arange(length) * 10
  metrics = {name: _series(steps, np.sin(steps)) for name in panel.metrics}
  metrics["swap/first_step"] = _series([3], [3])

  image = Image.open(io.BytesIO(plots.draw(panel, metrics)))

  assert image.size == (1080, 522)
  grey = np.asarray(image.convert("L"))
  assert grey.min() < 100 and grey.max() == 255


@pytest.mark.parametrize("panel", plots.PANELS, ids=lambda panel: panel.name)
def test_a_panels_unit_is_whole_beside_wide_numbers(panel):
  small = 0.003 / panel.scale  # Told as 0.0030.
  metrics = {n: _series([0, 10], [small, 0.0]) for n in panel.metrics}

  image = Image.open(io.BytesIO(plots.draw(panel, metrics)))

  assert (np.asarray(image.convert("L"))[:, 0] == 255).all()


def test_a_panel_without_its_metrics_is_left_out():
  assert plots.draw(plots.PANELS[0], {"other": _series([1], [1])}) is None


def test_not_finite_values_leave_a_gap():
  metrics = {"loss": _series([1, 2, 3], [1.0, np.nan, np.inf])}
  assert plots.draw(plots.PANELS[0], metrics)


def test_smoothing_leaves_a_straight_line_straight_inside():
  values = np.arange(100.0)
  half = 100 // 30
  np.testing.assert_allclose(
    plots.smooth(values)[half:-half], values[half:-half]
  )


def test_smoothing_is_the_mean_of_the_finite_values_in_its_window():
  values = np.random.default_rng(0).normal(size=90)
  values[[0, 17, 18, 89]] = np.nan
  wanted = [
    np.nanmean(values[max(0, i - 3) : i + 4]) for i in range(len(values))
  ]
  np.testing.assert_allclose(plots.smooth(values), wanted)


def test_the_index_ages_by_one_a_step_and_drops_at_each_swap():
  metrics = {
    "loss": _series([50, 100, 150], [3, 2, 1]),
    "index/staleness_steps": _series([50, 100, 150], [50, 75, 60]),
    "swap/first_step": _series([70, 120], [70, 120]),
    "swap/checkpoint_step": _series([70, 120], [50, 100]),
  }

  age = plots.index_age(metrics)["index/staleness_steps"]

  np.testing.assert_array_equal(age.steps, [50, 70, 119, 120, 149])
  np.testing.assert_array_equal(age.values, [50, 20, 69, 20, 49])


def test_without_swaps_the_age_is_what_was_logged():
  metrics = {"index/staleness_steps": _series([1], [1])}
  assert plots.index_age(metrics) == metrics
