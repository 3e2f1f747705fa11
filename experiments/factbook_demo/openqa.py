# SPDX-License-Identifier: Apache-2.0
r"""Fine-tunes a span reader and the query tower on questions about the facts.

    python -m launch.local \
      --config=experiments/factbook_demo/openqa.py --workdir=demo/openqa
"""

import dataclasses

import ml_collections

from experiments.factbook_demo import settings
from realm_jax.config import (
  InitConfig,
  OpenQaConfig,
  RefreshConfig,
  to_config_dict,
)


def get_config(directory: str = "demo") -> ml_collections.ConfigDict:
  """Returns the stage's config, for `make demo` in `directory`."""
  run = dataclasses.replace(
    settings.base(directory, "qa"),
    stage="openqa",
    num_steps=260,
    batch_size=16,
    openqa=OpenQaConfig(beam=100, read=5, max_span=8, span_width=64),
    # The document tower is frozen: one index serves the whole stage.
    refresh=RefreshConfig(policy="never"),
    optimizer=settings.optimizer(1e-3, retriever_scale=0.3),
    init=InitConfig(
      retriever=f"{directory}/realm", encoder=f"{directory}/realm"
    ),
  )
  return to_config_dict(run)
