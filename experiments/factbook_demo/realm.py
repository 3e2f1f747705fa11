# SPDX-License-Identifier: Apache-2.0
r"""REALM pre-training on sentences of facts, with the index rebuilt beside it.

    python -m launch.local \
      --config=experiments/factbook_demo/realm.py --workdir=demo/realm
"""

import dataclasses

import ml_collections

from experiments.factbook_demo import settings
from realm_jax.config import (
  InitConfig,
  RefreshConfig,
  RetrievalConfig,
  to_config_dict,
)


def get_config(directory: str = "demo") -> ml_collections.ConfigDict:
  """Returns the stage's config, for `make demo` in `directory`."""
  run = dataclasses.replace(
    settings.base(directory, "text"),
    stage="realm",
    num_steps=600,
    batch_size=20,
    retrieval=RetrievalConfig(num_candidates=4),
    # A stale index hurts at once. All versions are kept, to be counted.
    refresh=RefreshConfig(every_steps=40, lag_steps=40, keep_versions=100),
    optimizer=settings.optimizer(1.8e-3, retriever_scale=0.3),
    init=InitConfig(
      retriever=f"{directory}/ict", encoder=f"{directory}/reading"
    ),
  )
  return to_config_dict(run)
