# SPDX-License-Identifier: Apache-2.0
"""Search on the accelerators: every device scores its share of the passages.

`search_shards` runs without a collective and `merge` needs none on one device,
so any thread may search while the trainer's thread dispatches steps, on one
host or on several: each host shards the index over its own devices and
searches for its own queries, as each holds its own ScaNN index. Within one
jitted function over the same mesh, `merge(*search_shards(...))` is the whole
search, and XLA gathers the shards' results.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32
import numpy as np

from realm_jax import sharding
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.search import NO_PASSAGE, Neighbors, check_search

_BLOCK_ROWS = 2**16  # Passages that a device scores at once, at most,
_BLOCK_QUERIES = 512  # against so many queries: 128 MiB of scores.
_ROW_STEP = 64  # A block has a multiple of so many.
_FEWEST_QUERIES = 8


class DeviceIndex:
  """Passages in the memory of this process' devices; see `search_shards`.

  Numbers of queries are rounded up to powers of two, so that a few programs
  serve all of them; another index of about the size compiles nothing.
  """

  def __init__(
    self,
    embeddings: Embeddings,
    mesh: Mesh,
    dtype: Literal["float32", "bfloat16"],
    approximate: bool,
  ) -> None:
    """Copies the passages to the devices, and waits until they are there.

    The host holds one block a device at a time. A device holds N * D / devices
    numbers for every index that is open: two while one is swapped for another.

    Args:
      embeddings: of all passages.
      mesh: over devices of this process.
      dtype: in which passages and queries are multiplied; sums are f32.
      approximate: see `search_shards`.
    """
    self._num_passages, self._dim = embeddings.shape
    self._blocks = _place(embeddings, mesh, jnp.dtype(dtype))
    self._mesh, self._approximate = mesh, approximate

  def search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    """See `Index.search`; of equal scores the lower id comes first."""
    check_search(queries, k, self._dim)
    found = [Neighbors(np.empty((0, k), np.int32), np.empty((0, k), "f4"))]
    found += [
      self._search(queries[start : start + _BLOCK_QUERIES], k)
      for start in range(0, len(queries), _BLOCK_QUERIES)
    ]
    return Neighbors(*map(np.concatenate, zip(*found, strict=True)))

  def _search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    num_queries = max(_FEWEST_QUERIES, 1 << (len(queries) - 1).bit_length())
    padded = np.zeros((num_queries, self._dim), np.float32)
    padded[: len(queries)] = queries
    by_shard = _search_shards(
      jax.device_put(padded, sharding.replicated(self._mesh)),
      self._blocks,
      k=k,
      num_passages=self._num_passages,
      mesh=self._mesh,
      approximate=self._approximate,
    )
    # By way of the host: a gather between devices would be a collective.
    scores, ids = jax.device_get(_merge(*jax.device_get(by_shard)))
    return Neighbors(ids[: len(queries)], scores[: len(queries)])


def search_shards(
  queries: Float[Array, "B D"],
  blocks: Float[Array, "blocks rows D"],
  *,
  k: int,
  num_passages: int | Int32[Array, ""],
  mesh: Mesh,
  approximate: bool,
) -> tuple[Float32[Array, "shards B k"], Int32[Array, "shards B k"]]:
  """Returns (scores, ids) of each device's k best passages, best first.

  The scores of one block at a time are in memory. Of equal scores the lower id
  comes first; places that no passage fills hold (-inf, NO_PASSAGE).

  Args:
    queries: on every device; rounded to the blocks' dtype.
    blocks: of passages in order, split over the devices of `mesh` along the
      first axis; rows beyond `num_passages` are padding.
    k: passages a query.
    num_passages: N
    mesh: over which `blocks` are split.
    approximate: choose from a block with `jax.lax.approx_max_k`, which on a
      TPU is faster and finds 95% of the best; elsewhere it is exact.
  """
  axes = sharding.batch_sharding(mesh).spec
  num_blocks, rows, _ = blocks.shape
  first_ids = jnp.arange(num_blocks, dtype=jnp.int32) * rows

  def search_shard(
    queries: Float[Array, "B D"],
    blocks: Float[Array, "share rows D"],
    first_ids: Int32[Array, "share"],
  ) -> tuple[Float32[Array, "1 B k"], Int32[Array, "1 B k"]]:
    nothing = (
      jnp.full((len(queries), k), -jnp.inf, jnp.float32),
      jnp.full((len(queries), k), NO_PASSAGE, jnp.int32),
    )

    def add_block(best, block):  # type: ignore[no-untyped-def]
      embs, first_id = block
      scores, ids = _score(queries, embs, first_id, num_passages)
      scores, places = (
        jax.lax.approx_max_k(
          scores, min(k, rows), reduction_input_size_override=num_blocks * rows
        )
        if approximate
        else jax.lax.top_k(scores, min(k, rows))
      )
      # What was best so far has lower ids, and stands first among equals.
      scores = jnp.concatenate([best[0], scores], axis=1)
      ids = jnp.concatenate([best[1], ids[places]], axis=1)
      return _take_best(scores, ids, k), None

    start = jax.lax.pcast(nothing, mesh.axis_names, to="varying")
    (scores, ids), _ = jax.lax.scan(add_block, start, (blocks, first_ids))
    return scores[None], ids[None]

  return jax.shard_map(
    search_shard,
    mesh=mesh,
    in_specs=(jax.P(), axes, axes),
    out_specs=axes,
  )(queries.astype(blocks.dtype), blocks, first_ids)


def merge(
  scores: Float32[Array, "shards B k"], ids: Int32[Array, "shards B k"]
) -> tuple[Float32[Array, "B k"], Int32[Array, "B k"]]:
  """Returns (scores, ids) of the k best of all that `search_shards` found.

  No shard holds more than k of them, so they are the same on any number of
  devices.
  """
  num_queries, k = scores.shape[1:]
  # Shards hold ascending ids, so that again lower ones stand first.
  return _take_best(
    jnp.moveaxis(scores, 0, 1).reshape(num_queries, -1),
    jnp.moveaxis(ids, 0, 1).reshape(num_queries, -1),
    k,
  )


_search_shards = jax.jit(
  search_shards, static_argnames=("k", "mesh", "approximate")
)
_merge = jax.jit(merge)


def _score(
  queries: Float[Array, "B D"],
  embs: Float[Array, "rows D"],
  first_id: Int32[Array, ""],
  num_passages: int | Int32[Array, ""],
) -> tuple[Float32[Array, "B rows"], Int32[Array, "rows"]]:
  scores = jnp.einsum(
    "bd,nd->bn",
    queries,
    embs,
    # Accelerators would multiply f32 in bf16 or TF32 otherwise.
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  scores = jnp.where(scores == 0, 0.0, scores)  # top_k puts -0 below 0.
  ids = first_id + jnp.arange(len(embs), dtype=jnp.int32)
  real = ids < num_passages
  return (
    jnp.where(real[None, :], scores, -jnp.inf),
    jnp.where(real, ids, NO_PASSAGE),
  )


def _take_best(
  scores: Float32[Array, "B n"], ids: Int32[Array, "B n"], k: int
) -> tuple[Float32[Array, "B k"], Int32[Array, "B k"]]:
  scores, places = jax.lax.top_k(scores, k)  # Stable among equals.
  return scores, jnp.take_along_axis(ids, places, axis=1)


def _place(
  embeddings: Embeddings, mesh: Mesh, dtype: np.dtype
) -> Float[Array, "blocks rows D"]:
  """Splits the rows over the devices, in about even blocks.

  A corpus with a few passages more or less has blocks of the same shape, so
  that a move to it compiles nothing.
  """
  num_passages, dim = embeddings.shape
  share = -(-num_passages // (mesh.size * _BLOCK_ROWS))  # Blocks a device.
  rows = -(-num_passages // (mesh.size * share))
  step = min(_ROW_STEP, _BLOCK_ROWS)
  rows = -(-rows // step) * step
  devices = list(mesh.devices.flat)
  shards = [jnp.zeros((share, rows, dim), dtype, device=d) for d in devices]
  for number in range(share):
    for place, device in enumerate(devices):
      first = (place * share + number) * rows
      block = np.zeros((rows, dim), dtype)
      ids = np.arange(first, min(first + rows, num_passages))
      block[: len(ids)] = embeddings[ids]
      shards[place] = _set_block(
        shards[place], jax.device_put(block, device), number
      )
    # So that the host never runs ahead of the copies, and holds them all.
    jax.block_until_ready(shards)
  return jax.make_array_from_single_device_arrays(
    (mesh.size * share, rows, dim), sharding.batch_sharding(mesh), shards
  )


@functools.partial(jax.jit, donate_argnums=0)
def _set_block(
  blocks: Float[Array, "share rows D"],
  block: Float[Array, "rows D"],
  number: Int32[Array, ""] | int,
) -> Float[Array, "share rows D"]:
  return blocks.at[number].set(block)
