# SPDX-License-Identifier: Apache-2.0
"""BERT's transformer stack (Devlin et al., 2019), numerically Hugging Face's.

Three options make a tiny model trained from scratch learn to copy within a
few hundred steps; BERT's own settings are the defaults. All of them are here:
`norm="pre"` in `BertLayer`, `positions="relative"` in `RelativeBias`, and
`init="copying"` in the functions named `…_init`.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from realm_jax.config import BertConfig, Remat
from realm_jax.models import packed
from realm_jax.models.dropout import Dropout

Initializer = Callable[..., Any]

BERT_INIT = nn.initializers.normal(0.02)

# Relative positions: T5's buckets, both directions together.
NUM_BUCKETS = 32
MAX_DISTANCE = 128
# Copying starts from first-layer heads that look at these key offsets, one
# each: a token's surroundings tell where it is to be found again.
COPY_OFFSETS = (-1, -2, 1, -3, -4, 2, -5, -6)
COPY_BIAS = 8.0  # Added to the attention logit at that offset.


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Exact GELU, by erf: half the time of `jax.nn.gelu`'s erfc on a CPU."""
  wide = x.astype(jnp.float32)  # 1 + erf(x) cancels where x is negative.
  return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": gelu,
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
  "relu": jax.nn.relu,
}


# What a layer's backward pass takes over from its forward pass.
REMAT_POLICIES = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "layers": jax.checkpoint_policies.nothing_saveable,
}


def square_init(config: BertConfig) -> Initializer:
  """Of the kernels [H, H] that hand a token's content on."""
  return BERT_INIT if config.init == "bert" else _near_identity


def _near_identity(rng: jax.Array, shape: Any, dtype: Any) -> jax.Array:
  eye = jnp.eye(shape[0], shape[1], dtype=dtype)
  return eye + BERT_INIT(rng, shape, dtype)


def _match_init(config: BertConfig, layer: int) -> Initializer:
  """Of the query and key kernels [H, H]."""
  # The first layer looks by position alone.
  if config.init == "bert" or layer == 0:
    return BERT_INIT

  # Later ones look for tokens like their own, by what the first layer's
  # heads have gathered around both. It lies head beside head, so that every
  # head has to take columns of them all.
  def interleaved(rng: jax.Array, shape: Any, dtype: Any) -> jax.Array:
    columns = np.arange(shape[1]).reshape(-1, config.num_heads).T
    return _near_identity(rng, shape, dtype)[:, columns.reshape(-1)]

  return interleaved


def _token_init(config: BertConfig) -> Initializer:
  """Of the token embeddings [V, H]."""
  if config.init == "bert":
    return BERT_INIT
  # Unit vectors: the tied decoder then tells tokens apart from the start.
  return nn.initializers.normal(config.hidden_size**-0.5)


def _offset_init(config: BertConfig, layer: int) -> Initializer:
  """Of a layer's relative position bias [buckets, heads]."""
  if config.init == "bert" or layer > 0:
    return BERT_INIT

  def favour_neighbours(rng: jax.Array, shape: Any, dtype: Any) -> jax.Array:
    table = BERT_INIT(rng, shape, dtype)
    heads = np.arange(shape[1])
    buckets = position_bucket(np.array(COPY_OFFSETS))
    return table.at[buckets[heads % len(buckets)], heads].add(COPY_BIAS)

  return favour_neighbours


def position_bucket(offset: np.ndarray) -> np.ndarray:
  """Key position minus query position -> bucket (Raffel et al., 2020).

  Half of the buckets are for keys to the right. Of each half, one half holds
  single offsets and the other half logarithmically wider ranges, up to
  `MAX_DISTANCE` and all that is beyond.
  """
  half = NUM_BUCKETS // 2
  exact = half // 2
  distance = np.abs(offset)
  wide = exact + np.log(np.maximum(distance, 1) / exact) / np.log(
    MAX_DISTANCE / exact
  ) * (half - exact)
  bucket = np.where(distance < exact, distance, np.minimum(wide, half - 1))
  return (bucket + np.where(offset > 0, half, 0)).astype(np.int32)


def norm_layer(config: BertConfig, name: str | None = None) -> nn.LayerNorm:
  """LayerNorm over H; statistics are float32 whatever the activations are."""
  return nn.LayerNorm(
    epsilon=config.norm_eps,
    dtype=config.dtype,
    use_fast_variance=False,
    name=name,
  )


class RelativeBias(nn.Module):
  """A learnt attention bias for each head and distance."""

  config: BertConfig
  layer: int

  @nn.compact
  def __call__(self, length: int) -> Float[Array, "1 heads T T"]:
    """Returns the float32 bias to add to one layer's attention logits."""
    table = self.param(
      "embedding",
      _offset_init(self.config, self.layer),
      (NUM_BUCKETS, self.config.num_heads),
      jnp.float32,
    )
    place = np.arange(length)
    buckets = position_bucket(place[None, :] - place[:, None])  # [T, T]
    return jnp.transpose(table[buckets], (2, 0, 1))[None]


def _sees(query: Array, key: Array) -> Array:
  """Whether a token attends to another, given the rows that they are of."""
  # Padding (0) sees every token, as Hugging Face's does.
  return (key > 0) & ((query == key) | (query == 0))


class SelfAttention(nn.Module):
  """Multi-head attention of each token to those of its own row.

  Written out, because `jax.nn.dot_product_attention` has no dropout, and takes
  more time on a CPU.
  """

  config: BertConfig
  layer: int

  @nn.compact
  def __call__(
    self,
    states: Float[Array, "tokens H"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    *,
    deterministic: bool,
  ) -> Float[Array, "tokens H"]:
    """Returns the update that the residual stream is to get."""
    config = self.config
    length, width = mask.shape[1], states.shape[1]
    heads = (*mask.shape, config.num_heads, width // config.num_heads)
    match, carry = _match_init(config, self.layer), square_init(config)

    def dense(name: str, init: Initializer) -> nn.Dense:
      return nn.Dense(width, dtype=config.dtype, kernel_init=init, name=name)

    def by_head(name: str, init: Initializer) -> jax.Array:
      return dense(name, init)(states).reshape(heads).swapaxes(1, 2)

    query = by_head("query", match) * (heads[-1] ** -0.5)  # [n, h, T, d]
    logits = jnp.einsum(
      "nhtd,nhsd->nhts",
      query,
      by_head("key", match),
      preferred_element_type=jnp.float32,
    )
    if config.positions == "relative":
      bias = RelativeBias(config, self.layer, name="position_bias")(length)
      logits += jnp.broadcast_to(bias, logits.shape)
    keep = _sees(mask[:, None, :, None], mask[:, None, None, :])
    # A finite floor: a line that is all padding gets even weights, not NaN.
    keep = jnp.broadcast_to(keep, logits.shape)
    logits = jnp.where(keep, logits, -1e9)
    highest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - highest)
    total = weights.sum(axis=-1, keepdims=True)  # [n, h, T, 1]
    weights = Dropout(config.attention_dropout)(
      weights.astype(query.dtype), deterministic=deterministic
    )
    # The softmax' division comes last, where there is least to divide.
    context = jnp.einsum("nhts,nhsd->nhtd", weights, by_head("value", carry))
    context = (context / total).astype(query.dtype).swapaxes(1, 2)
    return dense("output", carry)(context.reshape(states.shape))


class BertLayer(nn.Module):
  """Attention and MLP, each with residual, dropout and LayerNorm."""

  config: BertConfig
  layer: int

  @nn.compact
  def __call__(
    self,
    states: Float[Array, "tokens H"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    *,
    deterministic: bool,
  ) -> Float[Array, "tokens H"]:
    """Returns the states after this layer."""
    config = self.config
    drop = Dropout(config.dropout)
    attention = SelfAttention(config, self.layer, name="attention")
    attention_norm = norm_layer(config, "attention_norm")
    mlp_norm = norm_layer(config, "mlp_norm")

    def mlp(inputs: jax.Array) -> jax.Array:
      up = nn.Dense(
        config.mlp_size,
        dtype=config.dtype,
        kernel_init=BERT_INIT,
        name="mlp_up",
      )
      down = nn.Dense(
        config.hidden_size,
        dtype=config.dtype,
        kernel_init=BERT_INIT,
        name="mlp_down",
      )
      return down(ACTIVATIONS[config.activation](up(inputs)))

    if config.norm == "pre":
      update = attention(
        attention_norm(states), mask, deterministic=deterministic
      )
      states += drop(update, deterministic=deterministic)
      update = mlp(mlp_norm(states))
      return states + drop(update, deterministic=deterministic)
    update = attention(states, mask, deterministic=deterministic)
    states = attention_norm(states + drop(update, deterministic=deterministic))
    update = mlp(states)
    return mlp_norm(states + drop(update, deterministic=deterministic))


class BertEncoder(nn.Module):
  """Token ids to one state of width H a token."""

  config: BertConfig
  remat: Remat = "none"  # See `RunConfig`.

  def setup(self) -> None:
    """Declares the submodules; `token_table` needs them by name."""
    config = self.config
    self.token_embed = nn.Embed(
      config.vocab_size, config.hidden_size, embedding_init=_token_init(config)
    )
    self.segment_embed = nn.Embed(
      config.num_segments, config.hidden_size, embedding_init=BERT_INIT
    )
    if config.positions == "absolute":
      self.position_embed = nn.Embed(
        config.max_positions, config.hidden_size, embedding_init=BERT_INIT
      )
    self.embed_norm = norm_layer(config)
    self.layers = [BertLayer(config, i) for i in range(config.num_layers)]
    if config.norm == "pre":
      self.final_norm = norm_layer(config)
    self.drop = Dropout(config.dropout)

  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"] | Int[Array, "n T"],
    starts: Int[Array, "n S"] | None = None,
    *,
    deterministic: bool,
  ) -> Float[Array, "n T H"]:
    """Returns the last layer's states, in the activations' dtype.

    States at padded places are finite and mean nothing.

    Args:
      ids: token ids.
      segments: 0 or 1.
      mask: True at tokens, or on lines of packed rows whose token it is.
      starts: of packed rows; see `shapes.PackedRows`.
      deterministic: no dropout.

    Raises:
      ValueError: plain rows are longer than `max_positions`.
    """
    config = self.config
    states = self.token_embed(ids) + self.segment_embed(segments)
    if config.positions == "absolute":
      states += self._position_states(mask, starts)
    states = self.drop(self.embed_norm(states), deterministic=deterministic)
    # [n * T, H]: with one axis less the matrix products' gradients need no
    # transposed copies, a fifth of an MLP's time on a CPU.
    states = states.reshape(-1, config.hidden_size)

    def run(layer: BertLayer, states: jax.Array) -> jax.Array:
      return layer(states, mask, deterministic=deterministic)

    if self.remat != "none":
      run = nn.remat(run, policy=REMAT_POLICIES[self.remat])
    for layer in self.layers:
      states = run(layer, states)
    if config.norm == "pre":
      states = self.final_norm(states)
    return states.reshape(*ids.shape, config.hidden_size)

  def _position_states(
    self, mask: Array, starts: Int[Array, "n S"] | None
  ) -> Float[Array, "n T H"]:
    if starts is not None:
      return self.position_embed(packed.places(mask, starts))
    length = mask.shape[1]
    if length > self.config.max_positions:
      raise ValueError(
        f"Rows of {length} tokens exceed bert.max_positions "
        f"({self.config.max_positions}): lower config.lengths."
      )
    table = self.position_embed.embedding[None, :length]
    return jnp.broadcast_to(table, (*mask.shape, self.config.hidden_size))

  def token_table(self) -> Float[Array, "V H"]:
    """Returns the token embeddings, for a decoder tied to them."""
    return jnp.asarray(self.token_embed.embedding)
