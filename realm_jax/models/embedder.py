# SPDX-License-Identifier: Apache-2.0
"""The retriever's tower: a text to one vector (REALM section 3.2)."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from realm_jax.config import EmbedderConfig, Remat
from realm_jax.models import bert, packed
from realm_jax.models.dropout import Dropout
from realm_jax.shapes import Params


class Embedder(nn.Module):
  """Encodes a text as a vector; relevance is the inner product of two.

  The same module serves queries and passages; which parameters it runs with
  (see `tower`) is the caller's choice at `apply`.
  """

  config: EmbedderConfig
  remat: Remat = "none"  # See `RunConfig`; only a gradient takes notice.

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    starts: Int[Array, "n S"] | None = None,
    order: Int[Array, "rows"] | None = None,
    *,
    deterministic: bool,
  ) -> Float[Array, "_ D"]:
    """Returns float32 vectors: scores feed a softmax over near-equals.

    Takes the fields of `shapes.TokenRows` or of `shapes.PackedRows`, and
    gives a vector a row, in the rows' order.
    """
    config = self.config
    states = bert.BertEncoder(config.bert, self.remat, name="bert")(
      ids, segments, mask, starts, deterministic=deterministic
    )
    if config.pooling == "mean":
      pooled = packed.mean_states(states, mask, starts)
    else:
      pooled = packed.first_states(states, starts)
    return EmbedderHead(config, name="head")(
      packed.in_order(pooled, order), deterministic=deterministic
    )


class EmbedderHead(nn.Module):
  """A pooled state to the retrieval vector."""

  config: EmbedderConfig

  @nn.compact
  def __call__(
    self,
    pooled: Float[Array, "n H"],
    *,
    deterministic: bool,
  ) -> Float[Array, "n D"]:
    """Returns f32 vectors."""
    config = self.config

    def dense(width: int, name: str) -> nn.Dense:
      return nn.Dense(
        width, dtype=config.bert.dtype, kernel_init=bert.BERT_INIT, name=name
      )

    if config.pooling == "pooler":
      pooled = jnp.tanh(dense(config.bert.hidden_size, "pooler")(pooled))
    if config.head == "l2":
      return unit_length(pooled.astype(jnp.float32))
    projected = dense(config.dim, "projection")(pooled)
    embs = nn.LayerNorm(
      epsilon=config.head_norm_eps, use_fast_variance=False, name="norm"
    )(projected.astype(jnp.float32))
    return Dropout(config.bert.dropout)(embs, deterministic=deterministic)


def unit_length(vectors: Float[Array, "n D"]) -> Float[Array, "n D"]:
  """Vectors over their Euclidean norm; zero stays zero."""
  squares = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
  # Not a division by the norm: its gradient at zero is NaN.
  return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def tower(retriever: Params, side: str) -> Params:
  """The embedder's parameters for `side`, "query" or "document"."""
  return retriever[side] if side in retriever else retriever["shared"]
