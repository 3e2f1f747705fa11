# SPDX-License-Identifier: Apache-2.0
"""What reads a query beside a passage: to fill masks, or to find an answer."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from realm_jax.config import BertConfig, Remat, RunConfig
from realm_jax.models import bert, packed

OUTSIDE_BLOCK = -1e4  # Score of a span that is no candidate (ORQA).
SPAN_NORM_EPS = 1e-3  # ORQA's reader, unlike BERT's own LayerNorms.


class KnowledgeAugmentedEncoder(nn.Module):
  """BERT with a masked-language head (REALM section 3.2)."""

  config: BertConfig
  remat: Remat = "none"  # See `RunConfig`.

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    positions: Int[Array, "rows M"],
    starts: Int[Array, "n S"] | None = None,
    order: Int[Array, "rows"] | None = None,
    *,
    deterministic: bool,
  ) -> Float[Array, "rows M V"]:
    """Returns float32 logits at `positions` of each row only.

    Gathering before the head saves T / M of its cost, the largest matrix
    product of the step otherwise. Takes the fields of `shapes.TokenRows`, or
    of `shapes.PackedRows`: the logits then have the rows' order.
    """
    encoder = bert.BertEncoder(self.config, self.remat, name="bert")
    states = encoder(ids, segments, mask, starts, deterministic=deterministic)
    masked = packed.states_at(states, positions, starts, order)
    return MlmHead(self.config, name="mlm_head")(masked, encoder.token_table())


class MlmHead(nn.Module):
  """A transform, then inner products with the token embeddings (tied)."""

  config: BertConfig

  @nn.compact
  def __call__(
    self, states: Float[Array, "n M H"], token_table: Float[Array, "V H"]
  ) -> Float[Array, "n M V"]:
    """Returns float32 logits."""
    config = self.config
    hidden = nn.Dense(
      config.hidden_size,
      dtype=config.dtype,
      kernel_init=bert.square_init(config),
      name="transform",
    )(states)
    hidden = bert.ACTIVATIONS[config.activation](hidden)
    bias = self.param(
      "bias", nn.initializers.zeros, (config.vocab_size,), jnp.float32
    )
    logits = jnp.einsum(
      "nmh,vh->nmv",
      bert.norm_layer(config, "norm")(hidden),
      token_table.astype(config.dtype),
      preferred_element_type=jnp.float32,
    )
    return logits + bias[None, None, :]


class SpanReader(nn.Module):
  """BERT that scores the spans of a passage (ORQA section 5)."""

  config: BertConfig
  max_span: int = 10  # W
  span_width: int = 256
  remat: Remat = "none"  # See `RunConfig`.

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    block_mask: Bool[Array, "rows P"],  # True on the passage's tokens.
    starts: Int[Array, "n S"] | None = None,
    order: Int[Array, "rows"] | None = None,
    *,
    deterministic: bool,
  ) -> Float[Array, "rows P W"]:
    """Returns f32 scores: [i, t, w] is the span t..t+w, both ends included.

    `OUTSIDE_BLOCK` where a span leaves the block, which is contiguous. Takes
    the fields of `shapes.TokenRows`, or of `shapes.PackedRows`: the scores
    then have the rows' order.
    """
    states = bert.BertEncoder(self.config, self.remat, name="bert")(
      ids, segments, mask, starts, deterministic=deterministic
    )
    if starts is not None:
      everywhere = jnp.arange(block_mask.shape[1])[None]
      everywhere = jnp.broadcast_to(everywhere, block_mask.shape)
      states = packed.states_at(states, everywhere, starts, order)
    scores = SpanHead(
      self.config, self.max_span, self.span_width, name="span_head"
    )(states)
    inside = block_mask[:, :, None] & shifted(block_mask, self.max_span)
    return jnp.where(inside, scores, OUTSIDE_BLOCK)


def span_reader(run: RunConfig) -> SpanReader:
  """Returns the span reader that a run's config asks for."""
  return SpanReader(
    run.encoder,
    max_span=run.openqa.max_span,
    span_width=run.openqa.span_width,
    remat=run.remat,
  )


class SpanHead(nn.Module):
  """Scores every span from the states at its two ends."""

  config: BertConfig
  max_span: int
  span_width: int

  @nn.compact
  def __call__(self, states: Float[Array, "n T H"]) -> Float[Array, "n T W"]:
    """Returns f32 scores, of spans past the row's end too."""
    dtype = self.config.dtype
    ends = nn.Dense(
      2 * self.span_width, dtype=dtype, kernel_init=bert.BERT_INIT, name="ends"
    )(states)
    start, end = jnp.split(ends, 2, axis=-1)  # Each [n, T, span_width].
    end = shifted(end, self.max_span)  # [n, T, W, span_width]
    start = jnp.broadcast_to(start[:, :, None, :], end.shape)
    hidden = nn.LayerNorm(
      epsilon=SPAN_NORM_EPS, dtype=dtype, use_fast_variance=False, name="norm"
    )(jax.nn.relu(start + end))
    score = nn.Dense(1, dtype=dtype, kernel_init=bert.BERT_INIT, name="score")(
      hidden
    )
    return score[..., 0].astype(jnp.float32)


def shifted(
  values: Float[Array, "n T *rest"] | Bool[Array, "n T *rest"], width: int
) -> Float[Array, "n T W *rest"] | Bool[Array, "n T W *rest"]:
  """[n, t, w] is `values[n, t + w]`, or zero (False) past the end."""
  length = values.shape[1]
  tail = [(0, 0)] * (values.ndim - 2)
  padded = jnp.pad(values, [(0, 0), (0, width - 1), *tail])
  return jnp.stack([padded[:, w : w + length] for w in range(width)], axis=2)
