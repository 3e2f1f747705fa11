# SPDX-License-Identifier: Apache-2.0
"""Recorded Hugging Face models; tools/golden/make_golden.py made them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import BertConfig
from tests.models.parity import Golden


@pytest.fixture
def golden() -> Callable[[str], Golden]:
  return Golden.load


@pytest.fixture
def golden_config() -> Callable[..., BertConfig]:
  def make(**fields: Any) -> BertConfig:
    return BertConfig(
      **{
        "vocab_size": 40,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_size": 24,
        "max_positions": 14,
        **fields,
      }
    )

  return make


@pytest.fixture
def random_params() -> Callable[..., Any]:
  """A module's parameters with every leaf random, biases and scales too."""

  def make(module: Any, *args: Any, **kwargs: Any) -> Any:
    shapes = jax.eval_shape(
      lambda: module.init(
        jax.random.key(0), *args, **kwargs, deterministic=True
      )
    )["params"]
    rng = np.random.default_rng(3)
    return jax.tree.map(
      lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype),
      shapes,
    )

  return make
