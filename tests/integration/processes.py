# SPDX-License-Identifier: Apache-2.0
"""Processes that a test starts, and what a run of theirs left."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np

from realm_jax.train.metrics import METRICS_FILE
from tests.integration.jobs import (
  PATIENCE_SECONDS,
  ROOT,
  final_params,
  schedule,
)


def start(log, module, *arguments, **environment):
  with log.open("a") as output:
    return subprocess.Popen(
      [sys.executable, "-m", *module, *arguments],
      cwd=ROOT,
      env=os.environ | environment,
      stdout=output,
      stderr=output,
      # A process group of its own, so that all of it can be killed.
      start_new_session=True,
    )


def finish(process, workdir, code=0):
  found = process.wait(PATIENCE_SECONDS)
  assert found == code, workdir.with_suffix(".log").read_text()


def wait_for(condition, process):
  deadline = time.monotonic() + PATIENCE_SECONDS
  while not condition():
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.02)


def records(workdir):
  if not (workdir / METRICS_FILE).exists():
    return []
  lines = (workdir / METRICS_FILE).read_text().splitlines(keepends=True)
  return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(workdir):
  return [line["loss"] for line in records(workdir) if "loss" in line]


def swaps(workdir):
  """(first step, checkpoint step) of each swap, as process 0 logged it."""
  return [
    (int(line["swap/first_step"]), int(line["swap/checkpoint_step"]))
    for line in records(workdir)
    if "swap/first_step" in line
  ]


def assert_same_run(workdir, wanted):
  """That two runs differ by rounding alone."""
  assert schedule(workdir) == schedule(wanted)
  np.testing.assert_allclose(losses(workdir), losses(wanted), rtol=2e-3)
  assert params_off(workdir, wanted) < 5e-3


def params_off(workdir, wanted):
  """How far a run ended from another, over the length of its parameters."""
  found, params = (_flat(final_params(each)) for each in (workdir, wanted))
  # As a whole: where a gradient is all but zero, Adam makes steps of rounding.
  return np.linalg.norm(found - params) / np.linalg.norm(params)


def _flat(params):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
