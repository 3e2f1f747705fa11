# SPDX-License-Identifier: Apache-2.0
"""Texts to the passages that a trained retriever finds for them."""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Int32
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data.collate import query_rows
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.eval.batching import fixed_batches
from realm_jax.index import store
from realm_jax.index.search import Neighbors
from realm_jax.shapes import Params
from realm_jax.train.search import Searcher

_BATCH = 32


class Retriever:
  """The newest index of a corpus, and the query tower that searches it."""

  def __init__(
    self,
    workdir: str,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    retriever_params: Params | None = None,
  ) -> None:
    """Opens the index.

    Args:
      workdir: of the run that the index belongs to.
      run: its config.
      corpus: which the index must be of.
      tokenizer: the corpus' own.
      retriever_params: whose query tower embeds queries; None for those of
        the version itself, with which it was searched in pre-training.

    Raises:
      FileNotFoundError: the workdir has no index of this corpus.
      ValueError: the index or the tokenizer does not go with the corpus.
    """
    corpus.check_tokenizer(tokenizer)
    name = store.newest_version(workdir, corpus)
    version = store.open_version(workdir, name, run, corpus)
    if retriever_params is not None:
      version = dataclasses.replace(version, retriever_params=retriever_params)
    self.version = version
    self._searcher = Searcher(run.embedder)
    self._tokenizer, self._length = tokenizer, run.lengths.query

  def search(
    self, queries: Sequence[Int32[np.ndarray, "_"]], k: int
  ) -> Neighbors:
    """Returns the k best passages of each query, given as pieces."""
    found = []
    for batch, count in fixed_batches(queries, _BATCH):
      rows = query_rows(batch, self._tokenizer, self._length)
      ids, scores = self._searcher.search(rows, self.version, k)
      found.append((ids[:count], scores[:count]))
    ids, scores = zip(*found, strict=True)
    return Neighbors(np.concatenate(ids), np.concatenate(scores))
