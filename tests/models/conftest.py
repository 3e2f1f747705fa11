# SPDX-License-Identifier: Apache-2.0
"""Recorded Hugging Face models; tools/golden/make_golden.py made them."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from realm_jax.config import BertConfig


@dataclasses.dataclass(frozen=True)
class Golden:
  folder: pathlib.Path
  weights: dict[str, np.ndarray]
  recorded: dict[str, np.ndarray]

  @property
  def rows(self) -> dict[str, jax.Array]:
    return {
      "ids": jnp.asarray(self.recorded["input_ids"], jnp.int32),
      "segments": jnp.asarray(self.recorded["token_type_ids"], jnp.int32),
      "mask": jnp.asarray(self.recorded["attention_mask"] == 1),
    }

  @property
  def real(self) -> np.ndarray:
    return self.recorded["attention_mask"] == 1

  def part(self, *prefixes: str) -> dict[str, np.ndarray]:
    """The tensors under the prefixes, as BertForMaskedLM names them."""
    return {
      name.replace("realm.", "bert."): value
      for name, value in self.weights.items()
      if name.startswith(prefixes)
    }


@pytest.fixture
def golden() -> Callable[[str], Golden]:
  root = pathlib.Path(__file__).parent / "golden"

  def load(name: str) -> Golden:
    folder = root / name
    return Golden(
      folder,
      load_file(folder / "model.safetensors"),
      load_file(folder / "golden.safetensors"),
    )

  return load


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
