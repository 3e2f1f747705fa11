# SPDX-License-Identifier: Apache-2.0
"""What a run does, as frozen dataclasses: every default lives here, once.

An experiment file builds a `RunConfig` and returns `to_config_dict(run)`;
`parse` turns that (with the command line's overrides) back, and refuses
unknown keys and wrong types. Behind `parse` no code sees a ConfigDict.
"""

from realm_jax.config.data import DataConfig, LengthConfig
from realm_jax.config.models import BertConfig, EmbedderConfig
from realm_jax.config.parsing import (
  differences,
  dumps,
  loads,
  parse,
  to_config_dict,
)
from realm_jax.config.retrieval import (
  RefreshConfig,
  RetrievalConfig,
  ScannConfig,
)
from realm_jax.config.run import MeshConfig, Remat, RunConfig, Stage
from realm_jax.config.stages import (
  DprConfig,
  IctConfig,
  OpenQaConfig,
  ReadingConfig,
)
from realm_jax.config.training import InitConfig, OptimizerConfig

__all__ = [
  "BertConfig",
  "DataConfig",
  "DprConfig",
  "EmbedderConfig",
  "IctConfig",
  "InitConfig",
  "LengthConfig",
  "MeshConfig",
  "OpenQaConfig",
  "OptimizerConfig",
  "ReadingConfig",
  "RefreshConfig",
  "Remat",
  "RetrievalConfig",
  "RunConfig",
  "ScannConfig",
  "Stage",
  "differences",
  "dumps",
  "loads",
  "parse",
  "to_config_dict",
]
