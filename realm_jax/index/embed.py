# SPDX-License-Identifier: Apache-2.0
"""The corpus through the document tower."""

from collections.abc import Callable, Iterator
import functools

import jax
from jaxtyping import Float32, Int
import numpy as np

from realm_jax import forward, sharding
from realm_jax.config import EmbedderConfig, RunConfig
from realm_jax.data import collate
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.packing import LENGTH_STEP
from realm_jax.data.tokenize import Tokenizer
from realm_jax.models.embedder import Embedder, tower
from realm_jax.shapes import Array, Params, TokenRows

STATIC_LENGTHS = 4  # That passages are padded to.


class CorpusEmbedder:
  """Embeds passages with any parameters; compiles once per static length."""

  def __init__(
    self,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    mesh: jax.sharding.Mesh,
  ) -> None:
    """Compiles nothing yet.

    Args:
      run: gives the embedder, and lengths.passage, to which bodies are cut.
      corpus: its lengths decide the static ones.
      tokenizer: the corpus' own.
      mesh: over devices of this process; the rows of a batch are split over
        them, and the result does not depend on it beyond rounding.

    Raises:
      ValueError: the tokenizer is not the corpus' own.
    """
    corpus.check_tokenizer(tokenizer)
    self._corpus, self._tokenizer, self._mesh = corpus, tokenizer, mesh
    self._dim = run.embedder.dim
    self._num_tokens = collate.passage_lengths(
      corpus, np.arange(len(corpus)), run.lengths.passage
    )
    self._lengths = static_lengths(
      self._num_tokens, STATIC_LENGTHS, run.lengths.passage
    )
    self._embed_rows = make_embed_rows(run.embedder, mesh)

  def embed(
    self,
    retriever: Params,
    ids: Int[np.ndarray, "n"] | None = None,
    progress: Callable[[int], None] | None = None,
  ) -> Float32[np.ndarray, "n D"]:
    """Returns the vectors of the passages `ids`, or of all, in their order.

    Args:
      retriever: the params tree's "retriever".
      ids: rows of the corpus.
      progress: called with the number of passages done since its last call.
    """
    if ids is None:
      ids = np.arange(len(self._corpus))
    params = jax.device_put(
      tower(retriever, "document"), sharding.replicated(self._mesh)
    )
    embs = np.empty((len(ids), self._dim), np.float32)
    batches = self._batches(ids)
    embed_rows = functools.partial(self._embed_rows, params)
    for places, vectors in forward.computed(batches, embed_rows):
      embs[places] = vectors[: len(places)]
      if progress is not None:
        progress(len(places))
    return embs

  def _batches(
    self, ids: Int[np.ndarray, "n"]
  ) -> Iterator[tuple[np.ndarray, TokenRows]]:
    """Yields (places in `ids`, rows of a static shape), longest first."""
    num_tokens = self._num_tokens[ids]
    longest_first = np.argsort(-num_tokens, kind="stable")
    start = 0
    while start < len(ids):
      length = int(
        self._lengths[
          np.searchsorted(self._lengths, num_tokens[longest_first[start]])
        ]
      )
      # A batch that the passages of this length do not fill takes shorter
      # ones along, so only the very last one is padded.
      num_rows = self._rows_of(length)
      places = longest_first[start : start + num_rows]
      padding = np.full(num_rows - len(places), places[-1])
      chosen = ids[np.concatenate([places, padding])]
      yield (
        places,
        collate.passage_rows(self._corpus, self._tokenizer, chosen, length),
      )
      start += num_rows

  def _rows_of(self, length: int) -> int:
    per_device = forward.rows_per_device(length, self._mesh)
    # A small corpus needs no more than its own rows.
    needed = -(-len(self._corpus) // self._mesh.size)
    return min(per_device, needed) * self._mesh.size


@functools.cache
def make_embed_rows(
  config: EmbedderConfig, mesh: jax.sharding.Mesh
) -> jax.stages.Wrapped:
  """Returns jitted `(tower's params, TokenRows[n, T]) -> f32[n, D]`.

  The rows are split over the mesh. The same function comes back for the same
  arguments, so nothing is compiled twice in a process.
  """
  embedder = Embedder(config)
  batch = sharding.batch_sharding(mesh)

  def embed_rows(params: Params, rows: TokenRows) -> Array:
    return embedder.apply({"params": params}, **rows, deterministic=True)

  return jax.jit(
    embed_rows,
    in_shardings=(sharding.replicated(mesh), batch),
    out_shardings=batch,
  )


def static_lengths(
  num_tokens: Int[np.ndarray, "N"], count: int, longest: int
) -> Int[np.ndarray, "_"]:
  """Chooses up to `count` row lengths that pad `num_tokens` little.

  Quantiles of the lengths there are, rounded up; the last fits every row.
  """
  quantiles = np.quantile(num_tokens, np.arange(1, count + 1) / count)
  rounded = -(-np.ceil(quantiles).astype(int) // LENGTH_STEP) * LENGTH_STEP
  return np.unique(np.minimum(rounded, longest))
