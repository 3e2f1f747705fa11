# SPDX-License-Identifier: Apache-2.0
"""Searching an index with queries embedded by the version's own retriever.

So what a batch retrieves depends on the batch and the version alone, and it
can be searched ahead of the device. No collective runs here: threads call it.
"""

import functools
import threading

import jax
import numpy as np

from realm_jax.config import EmbedderConfig
from realm_jax.index.search import Neighbors
from realm_jax.index.store import IndexVersion
from realm_jax.models.embedder import Embedder, tower
from realm_jax.shapes import Array, Params, TokenRows

_KEPT_VERSIONS = 2  # The one in use, and the one after.


@functools.cache
def _embed_queries(config: EmbedderConfig) -> jax.stages.Wrapped:
  embedder = Embedder(config)

  @jax.jit
  def embed(params: Params, rows: TokenRows) -> Array:
    return embedder.apply({"params": params}, **rows, deterministic=True)

  return embed


class Searcher:
  """Embeds queries on this host's first device and searches a version."""

  def __init__(self, config: EmbedderConfig) -> None:
    self._embed = _embed_queries(config)
    self._device = jax.local_devices()[0]
    self._placed: dict[str, Params] = {}
    self._lock = threading.Lock()

  def embed(self, rows: TokenRows, version: IndexVersion) -> np.ndarray:
    """Returns the queries' vectors, f32[n, D]."""
    rows = jax.device_put(rows, self._device)
    return np.asarray(self._embed(self._query_params(version), rows))

  def search(self, rows: TokenRows, version: IndexVersion, k: int) -> Neighbors:
    """Returns each query's k best passages, ids i32[n, k]."""
    return version.index.search(self.embed(rows, version), k)

  def _query_params(self, version: IndexVersion) -> Params:
    with self._lock:
      if version.version not in self._placed:
        params = tower(version.retriever_params, "query")
        self._placed[version.version] = jax.device_put(params, self._device)
        for name in list(self._placed)[:-_KEPT_VERSIONS]:
          del self._placed[name]
      return self._placed[version.version]
