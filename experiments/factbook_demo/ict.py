# SPDX-License-Identifier: Apache-2.0
r"""Warms the retriever up by the inverse cloze task: which passage is it from?

    python -m launch.local \
      --config=experiments/factbook_demo/ict.py --workdir=demo/ict
"""

import dataclasses

import ml_collections

from experiments.factbook_demo import settings
from realm_jax.config import to_config_dict


def get_config(directory: str = "demo") -> ml_collections.ConfigDict:
  """Returns the stage's config, for `make demo` in `directory`."""
  run = dataclasses.replace(
    settings.base(directory, "warmup"),
    stage="ict",
    num_steps=250,
    batch_size=64,
    optimizer=settings.optimizer(2e-3),
  )
  return to_config_dict(run)
