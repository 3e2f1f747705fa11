# SPDX-License-Identifier: Apache-2.0
"""What the towers, the encoder and the reader are made of."""

import dataclasses
from typing import Literal

from realm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
  """A BERT encoder's architecture; the defaults are BERT-base uncased."""

  vocab_size: int = 30522
  hidden_size: int = 768  # H
  num_layers: int = 12
  num_heads: int = 12
  mlp_size: int = 3072
  max_positions: int = 512
  num_segments: int = 2
  activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
  norm_eps: float = 1e-12
  dropout: float = 0.1
  attention_dropout: float = 0.1
  dtype: Literal["float32", "bfloat16"] = "float32"  # Of the activations.
  # What a tiny model trained from scratch needs to learn to copy, and BERT
  # does not: see README, "The demo's model".
  norm: Literal["post", "pre"] = "post"
  positions: Literal["absolute", "relative"] = "absolute"
  init: Literal["bert", "copying"] = "bert"

  def __post_init__(self) -> None:
    require(
      self.hidden_size % self.num_heads == 0,
      f"hidden_size ({self.hidden_size}) must be a multiple of num_heads "
      f"({self.num_heads}).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
  """The retriever's towers: text to a vector of `dim` numbers."""

  bert: BertConfig = dataclasses.field(default_factory=BertConfig)
  dim: int = 128  # D
  # "pooler" is BERT's tanh layer over [CLS], as REALM uses it.
  pooling: Literal["pooler", "cls", "mean"] = "pooler"
  # "layer_norm": Dense(dim) then LayerNorm (REALM). "l2": no projection, unit
  # vectors, dim = hidden_size (sentence-transformers).
  head: Literal["layer_norm", "l2"] = "layer_norm"
  head_norm_eps: float = 1e-12
  shared: bool = True  # One tower for queries and documents.
  temperature: float = 1.0  # Scores are inner products divided by this.

  def __post_init__(self) -> None:
    require(self.dim > 0, f"embedder.dim must be positive, got {self.dim}.")
    require(
      self.temperature > 0,
      f"embedder.temperature must be positive, got {self.temperature}.",
    )
    require(
      self.head != "l2" or self.dim == self.bert.hidden_size,
      f"embedder.head='l2' has no projection: dim ({self.dim}) must equal "
      f"bert.hidden_size ({self.bert.hidden_size}).",
    )
