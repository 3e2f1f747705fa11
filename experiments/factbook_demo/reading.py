# SPDX-License-Identifier: Apache-2.0
r"""Warms the encoder up: fill in a masked text that stands beside its passage.

    python -m launch.local \
      --config=experiments/factbook_demo/reading.py --workdir=demo/reading
"""

import dataclasses

import ml_collections

from experiments.factbook_demo import settings
from realm_jax.config import (
  ReadingConfig,
  to_config_dict,
)


def get_config(directory: str = "demo") -> ml_collections.ConfigDict:
  """Returns the stage's config, for `make demo` in `directory`."""
  run = dataclasses.replace(
    settings.base(directory, "warmup"),
    stage="mlm",
    num_steps=300,
    batch_size=64,
    reading=ReadingConfig(null_rate=0.15),
    optimizer=settings.optimizer(2e-3),
  )
  return to_config_dict(run)
