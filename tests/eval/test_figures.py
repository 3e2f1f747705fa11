# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.eval import figures


def test_means_by_hand_and_what_does_not_count_is_left_out():
  nan = np.nan
  got = figures.summarise(
    {
      "right": np.array([True, False, True, True]),
      "some": np.array([nan, 1.0, 0.0, nan]),
      "none": np.full(4, nan),
    }
  )
  assert (got["right"], got["some"]) == (0.75, 0.5)
  assert set(got) == {"right", "some", "intervals"}
  assert set(got["intervals"]) == {"right", "some"}


def test_intervals_are_those_of_the_mean_of_many_examples():
  """Of n coin tosses, the mean's standard error is sqrt(p (1 - p) / n)."""
  values = np.zeros((4000, 2))
  values[:1200, 0] = 1.0
  values[:, 1] = np.random.default_rng(1).normal(5.0, 2.0, 4000)
  got = figures.intervals(values, resamples=4000)
  errors = values.std(axis=0) / np.sqrt(4000)
  means = values.mean(axis=0)
  expected = np.stack([means - 1.96 * errors, means + 1.96 * errors], axis=1)
  np.testing.assert_allclose(got, expected, atol=0.1 * errors.max())


def test_an_interval_equals_a_slow_bootstraps():
  rng = np.random.default_rng(2)
  values = rng.random((60, 1))
  slow = [values[rng.integers(0, 60, 60)].mean() for _ in range(20_000)]
  got = figures.intervals(values, resamples=20_000)
  np.testing.assert_allclose(
    got[0], np.percentile(slow, (2.5, 97.5)), atol=3e-3
  )


def test_examples_that_do_not_count_widen_the_interval():
  rng = np.random.default_rng(3)
  values = rng.random((2000, 1))
  sparse = values.copy()
  sparse[100:] = np.nan
  alone = figures.intervals(values[:100])
  widths = np.diff([alone[0], figures.intervals(sparse)[0]], axis=1)
  assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_resamples_without_any_of_the_few_that_count_have_no_mean():
  values = np.full((300, 1), np.nan)
  values[:2] = 1.0
  assert figures.intervals(values).tolist() == [[1.0, 1.0]]


def test_the_same_values_give_the_same_interval():
  values = np.random.default_rng(4).random((30, 3))
  np.testing.assert_array_equal(
    figures.intervals(values), figures.intervals(values)
  )
  assert (figures.intervals(np.ones((9, 1))) == 1.0).all()


def test_figures_of_nothing_are_an_error():
  with pytest.raises(ValueError, match="at least one example"):
    figures.summarise({"right": np.zeros(0)})
