# SPDX-License-Identifier: Apache-2.0
r"""The baseline: REALM's sentences and steps for an encoder without passages.

It starts from the same warm-up as the `realm` stage.

    python -m launch.local \
      --config=experiments/factbook_demo/closed_book.py \
      --workdir=demo/closed_book
"""

import dataclasses

import ml_collections

from experiments.factbook_demo import settings
from realm_jax.config import (
  InitConfig,
  ReadingConfig,
  to_config_dict,
)


def get_config(directory: str = "demo") -> ml_collections.ConfigDict:
  """Returns the stage's config, for `make demo` in `directory`."""
  run = dataclasses.replace(
    settings.base(directory, "text"),
    stage="mlm",
    num_steps=600,
    batch_size=20,
    reading=ReadingConfig(null_rate=1.0),
    optimizer=settings.optimizer(1.8e-3),
    init=InitConfig(encoder=f"{directory}/reading"),
  )
  return to_config_dict(run)
