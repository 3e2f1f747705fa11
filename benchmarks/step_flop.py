# SPDX-License-Identifier: Apache-2.0
"""Holds `realm plan`'s FLOP of a step against XLA's and a closed form's.

    python -m benchmarks.step_flop

The plan counts the matrix products of a compiled step with a few of the layers.
XLA's cost analysis is of the whole step as it is lowered, all operations
counted. The closed form, 6 x parameters x tokens and attention, is of matrix
products alone, none of them computed again.
"""

import dataclasses

from absl import app
import jax
import numpy as np

from benchmarks.scaling import MODELS, ROWS_AT_ONCE
from benchmarks.workload import RowLengths, model_flop
from realm_jax import sharding
from realm_jax.config import Remat, RunConfig
from realm_jax.plan import compiled
from realm_jax.plan.batches import full_rows
from realm_jax.train.program import Program

CASES: tuple[tuple[str, Remat], ...] = (
  ("base", "none"),
  ("base", "dots"),
  ("base", "layers"),
  ("large", "dots"),
)


def closed_form(run: RunConfig) -> float:
  """Returns the FLOP of a step of full rows."""
  lengths, shape = run.lengths, (run.batch_size, run.retrieval.num_candidates)
  return model_flop(
    run,
    RowLengths(
      query=np.full(run.batch_size, lengths.query),
      passage=np.full(shape, lengths.passage),
      joint=np.full(shape, lengths.joint),
    ),
  )


def analysed(run: RunConfig) -> float:
  """Returns the FLOP of the whole step by XLA's cost analysis."""
  program = Program(run, sharding.make_mesh(run.mesh))
  costs = program.lower(full_rows(run)).cost_analysis()
  assert costs is not None  # XLA for CPUs has it.
  return float(costs["flops"])


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  print("| model | remat | plan TFLOP | XLA's over it | closed form's |")
  print("|---|---|---|---|---|", flush=True)
  for model, remat in CASES:
    run = dataclasses.replace(
      MODELS[model], batch_size=ROWS_AT_ONCE, remat=remat
    )
    planned = compiled.step_cost(run, 1, 1, num_hosts=1).flops
    print(
      f"| {model} | {remat} | {planned / 1e12:.2f} "
      f"| {analysed(run) / planned - 1:+.1%} "
      f"| {closed_form(run) / planned - 1:+.1%} |",
      flush=True,
    )


if __name__ == "__main__":
  app.run(main)
