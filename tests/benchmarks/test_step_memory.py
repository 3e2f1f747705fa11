# SPDX-License-Identifier: Apache-2.0
"""Real steps on simulated devices, each in a process of its own."""

from concurrent.futures.process import BrokenProcessPool
import dataclasses
import pathlib
import re
import resource

import jax
import pytest

from benchmarks import step_memory
from benchmarks.step_memory import DEVICES, SIZES, Case, Trial
from realm_jax.config import EmbedderConfig, MeshConfig

CASES = [
  Case("medium", 1, "none"),
  Case("medium", 4, "none"),
  Case("medium", 8, "none"),
  Case("medium", 1, "layers"),
  Case("medium", 8, "dots"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_take_the_memory_that_was_planned(case):
  ((planned, measured),) = step_memory.results([case])
  assert measured == pytest.approx(planned, rel=0.1)


def wide_run(fsdp):
  """A run whose state is most of its memory."""
  bert = dataclasses.replace(
    SIZES["small"], hidden_size=512, num_heads=4, mlp_size=2048
  )
  return dataclasses.replace(
    Case("small", fsdp, "layers").run,
    stage="mlm",
    encoder=bert,
    embedder=EmbedderConfig(bert=bert),
    mesh=MeshConfig(fsdp=fsdp),
  )


def planned(fsdp):
  return Trial(wide_run(fsdp)).cost.memory


def peak_within(fsdp, budget):
  """Trains where the devices can have `budget` bytes in all."""
  trial = Trial(wide_run(fsdp))
  status = pathlib.Path("/proc/self/status").read_text()
  has = 1024 * int(re.search(r"VmData:\s+(\d+)", status)[1])
  resource.setrlimit(resource.RLIMIT_DATA, (has + budget, has + budget))
  return trial.peak()


@pytest.mark.slow
def test_a_model_trains_where_replicated_it_would_not_fit():
  with step_memory.one_at_a_time() as processes:
    whole, shared = processes.map(planned, (1, DEVICES))
    budget = int(DEVICES * (whole + shared) / 2)
    assert processes.submit(peak_within, DEVICES, budget).result() < whole
    with pytest.raises((jax.errors.JaxRuntimeError, BrokenProcessPool)):
      processes.submit(peak_within, 1, budget).result()
