# SPDX-License-Identifier: Apache-2.0
import json
import time

from etils import epath
import numpy as np

from realm_jax import files
from realm_jax.train.metrics import Means, MetricLog


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_means_weigh_each_element_alike_whatever_batch_it_came_in():
  means = Means()
  means.add({"loss": (np.float32(6.0), np.float32(3.0))})
  means.add({"loss": (np.float32(10.0), np.float32(1.0)), "none": (0.0, 0.0)})
  assert means.pop() == {"loss": 4.0}
  assert means.pop() == {}


def test_a_resumed_run_drops_lines_it_will_write_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricLog(str(tmp_path), 0) as log:
    for step in (10, 20, 30):
      log.write(step, {"loss": step / 10})
  with path.open("a") as file:
    file.write('{"step": 40, "lo')  # Killed in the middle of a line.
  with MetricLog(str(tmp_path), 20) as log:
    log.write(30, {"loss": 7.0})
  assert lines(path) == [
    {"step": 10, "loss": 1.0},
    {"step": 20, "loss": 2.0},
    {"step": 30, "loss": 7.0},
  ]


def test_tensorboard_gets_the_same_scalars(tmp_path):
  with MetricLog(str(tmp_path), 0) as log:
    log.write(10, {"loss": 1.5})
  assert list(tmp_path.glob("events*"))


def test_a_workdir_in_a_store_has_the_same_files(url):
  workdir = epath.Path(url)
  with MetricLog(url, 0) as log:
    for step in (10, 20, 30):
      log.write(step, {"loss": step / 10})
    # Long before the end of the run.
    while not (workdir / "metrics.jsonl").exists():
      time.sleep(0.01)
  with MetricLog(url, 20) as log:
    log.write(30, {"loss": 7.0})
  assert lines(workdir / "metrics.jsonl") == [
    {"step": 10, "loss": 1.0},
    {"step": 20, "loss": 2.0},
    {"step": 30, "loss": 7.0},
  ]
  events = [p for p in workdir.iterdir() if p.name.startswith("events")]
  assert events
  assert all(files.size(path) for path in events)
