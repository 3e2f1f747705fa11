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
    num_steps=340,
    batch_size=24,
    openqa=OpenQaConfig(beam=50, read=3, max_span=8, span_width=64),
    # The document tower is frozen, but the query tower that picks the beam is
    # a version's own: new versions keep it in step.
    refresh=RefreshConfig(every_steps=40, lag_steps=40),
    optimizer=settings.optimizer(1.5e-3, retriever_scale=0.2),
    init=InitConfig(
      retriever=f"{directory}/realm", encoder=f"{directory}/realm"
    ),
  )
  return to_config_dict(run)
