# SPDX-License-Identifier: Apache-2.0
import json

from etils import epath
import numpy as np
import pytest

from realm_jax.eval import metrics_file


def _write(tmp_path, text):
  path = epath.Path(tmp_path / "metrics.jsonl")
  path.write_text(text)
  return path


def test_series_are_by_step_whatever_the_order_of_lines(tmp_path):
  lines = [
    {"step": 20, "loss": 2},
    {"step": 10, "loss": 3.0, "wait": 0.5},
    {"step": 20, "swap/first_step": 20},
  ]
  path = _write(tmp_path, "".join(json.dumps(x) + "\n" for x in lines))

  metrics = metrics_file.read_metrics(path)

  np.testing.assert_array_equal(metrics["loss"].steps, [10, 20])
  np.testing.assert_array_equal(metrics["loss"].values, [3.0, 2.0])
  assert len(metrics["wait"]) == len(metrics["swap/first_step"]) == 1


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path):
  path = _write(tmp_path, '{"step": 1, "loss": 9}\n{"step": 1, "loss": 8}\n')
  np.testing.assert_array_equal(
    metrics_file.read_metrics(path)["loss"].values, [8.0]
  )


@pytest.mark.parametrize("cut", ["", "{", '{"step": 2, "lo', '{"step": 2'])
def test_a_last_line_cut_short_is_skipped(tmp_path, cut):
  path = _write(tmp_path, '{"step": 1, "loss": 9}\n' + cut)
  assert list(metrics_file.read_metrics(path)["loss"].steps) == [1]


def test_a_line_cut_inside_a_character_is_skipped(tmp_path):
  path = _write(tmp_path, "")
  whole = '{"step": 1, "loss": 1}\n{"step": 2, "é'.encode()
  path.write_bytes(whole[:-1])
  assert list(metrics_file.read_metrics(path)["loss"].steps) == [1]


@pytest.mark.parametrize(
  ("line", "problem"),
  [
    ('{"step": 2, "lo', "JSON"),
    ("[1, 2]", "object"),
    ('{"loss": 1.0}', "'step' must be an int, got None"),
    ('{"step": 1.5}', "'step' must be an int, got 1.5"),
    ('{"step": 2, "loss": "low"}', "'loss' must be a number, got 'low'"),
    ('{"step": 2, "loss": true}', "'loss' must be a number, got True"),
  ],
)
def test_any_other_bad_line_is_named(tmp_path, line, problem):
  path = _write(tmp_path, '{"step": 1, "loss": 1}\n' + line + "\n")
  with pytest.raises(ValueError, match=r"metrics.jsonl:2: .*" + problem):
    metrics_file.read_metrics(path)


def test_no_file_means_no_metrics(tmp_path):
  assert metrics_file.read_metrics(epath.Path(tmp_path / "none")) == {}
