# SPDX-License-Identifier: Apache-2.0
"""The retriever's tower: a text to one vector (REALM section 3.2)."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from realm_jax.config import EmbedderConfig
from realm_jax.models import bert
from realm_jax.models.dropout import Dropout
from realm_jax.shapes import Params


class Embedder(nn.Module):
  """Encodes a text as a vector; relevance is the inner product of two.

  The same module serves queries and passages; which parameters it runs with
  (see `tower`) is the caller's choice at `apply`.
  """

  config: EmbedderConfig

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"],
    *,
    deterministic: bool,
  ) -> Float[Array, "n D"]:
    """Returns float32 vectors: scores feed a softmax over near-equals."""
    config = self.config
    states = bert.BertEncoder(config.bert, name="bert")(
      ids, segments, mask, deterministic=deterministic
    )
    return EmbedderHead(config, name="head")(
      states, mask, deterministic=deterministic
    )


class EmbedderHead(nn.Module):
  """Token states to the retrieval vector."""

  config: EmbedderConfig

  @nn.compact
  def __call__(
    self,
    states: Float[Array, "n T H"],
    mask: Bool[Array, "n T"],
    *,
    deterministic: bool,
  ) -> Float[Array, "n D"]:
    """Returns one vector a row, f32."""
    config = self.config

    def dense(width: int, name: str) -> nn.Dense:
      return nn.Dense(
        width, dtype=config.bert.dtype, kernel_init=bert.BERT_INIT, name=name
      )

    if config.pooling == "mean":
      pooled = mean_of_tokens(states, mask)
    else:
      pooled = states[:, 0, :]  # [n, H]: [CLS].
    if config.pooling == "pooler":
      pooled = jnp.tanh(dense(config.bert.hidden_size, "pooler")(pooled))
    if config.head == "l2":
      return unit_length(pooled.astype(jnp.float32))
    projected = dense(config.dim, "projection")(pooled)
    embs = nn.LayerNorm(
      epsilon=config.head_norm_eps, use_fast_variance=False, name="norm"
    )(projected.astype(jnp.float32))
    return Dropout(config.bert.dropout)(embs, deterministic=deterministic)


def mean_of_tokens(
  states: Float[Array, "n T H"], mask: Bool[Array, "n T"]
) -> Float[Array, "n H"]:
  """Mean over a row's real tokens, f32; zero for a row without any."""
  weights = mask.astype(jnp.float32)
  weights /= jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
  return jnp.einsum("nth,nt->nh", states.astype(jnp.float32), weights)


def unit_length(vectors: Float[Array, "n D"]) -> Float[Array, "n D"]:
  """Vectors over their Euclidean norm; zero stays zero."""
  squares = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
  # Not a division by the norm: its gradient at zero is NaN.
  return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def tower(retriever: Params, side: str) -> Params:
  """The embedder's parameters for `side`, "query" or "document"."""
  return retriever[side] if side in retriever else retriever["shared"]
