# SPDX-License-Identifier: Apache-2.0
"""Measures an index version before it is used: recall, and what changed."""

import grain
import jax
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import Neighbors, overlap_at_k
from realm_jax.index.store import IndexVersion
from realm_jax.shapes import TokenRows
from realm_jax.train.search import Searcher

_QUERIES = 512  # Evenly spread over the file.
_DEPTH = 20
_RECALLS = (1, 5, 20)
# Of the exact search: some ten CPU seconds. So 256 queries at a million
# passages, and 20 at 13 million.
_SCORES = 2**28


class RecallProbe:
  """Searches a fixed set of queries with each new version.

  Queries are embedded with the version's own parameters, so the figures are
  the version's, whatever step the trainer has reached.
  """

  def __init__(
    self,
    searcher: Searcher,
    examples: grain.MapDataset,
    corpus: PassageCorpus,
    *,
    held_out: bool,
  ) -> None:
    """Draws the queries.

    Args:
      searcher: embeds them.
      examples: with fields "query" and "gold_row"; finite.
      corpus: whose rows are meant.
      held_out: whether recall means anything, as nothing trains on them.
    """
    self._searcher, self._corpus = searcher, corpus
    drawn = [examples[int(i)] for i in _spread(_QUERIES, len(examples))]
    queries = [example["query"] for example in drawn]
    self._rows = TokenRows(
      ids=np.stack([query["ids"] for query in queries]),
      segments=np.stack([query["segments"] for query in queries]),
      mask=np.stack([query["mask"] for query in queries]),
    )
    gold = [example["gold_row"] if held_out else -1 for example in drawn]
    self._gold = np.array(gold)

  def __call__(
    self, new: IndexVersion, old: IndexVersion | None
  ) -> dict[str, float]:
    """Returns recall@k of the gold passages, and how stale `old` had become.

    That is the overlap@20 of what it finds, searched as in training, with the
    passages that are best by the new parameters: exact search over the new
    embeddings. Below 1 it tells what staleness and approximate search cost.
    """
    scores = self._recall(new)
    if old is not None:
      scores["swap/overlap_at_k"] = self._overlap(new, old)
    return scores

  def _recall(self, new: IndexVersion) -> dict[str, float]:
    gold = self._corpus.rows_in(new.corpus, self._gold)
    known = gold >= 0
    if not known.any():
      return {}
    found = self._searcher.search(self._rows, new, _DEPTH)
    hits = found.ids[known] == gold[known, None]
    return {
      f"probe/recall_at_{k}": float(hits[:, :k].any(axis=1).mean())
      for k in _RECALLS
    }

  def _overlap(self, new: IndexVersion, old: IndexVersion) -> float:
    few = max(_SCORES // len(new.embeddings), 1)
    chosen = _spread(few, len(self._gold))
    rows = jax.tree.map(lambda field: field[chosen], self._rows)
    queries = self._searcher.embed(rows, new)
    fresh = ExactIndex(new.embeddings).search(queries, _DEPTH)
    stale = self._searcher.search(rows, old, _DEPTH)
    ids = old.corpus.rows_in(new.corpus, stale.ids)
    return overlap_at_k(fresh, Neighbors(ids, stale.scores))


def _spread(count: int, num_items: int) -> np.ndarray:
  """Returns up to `count` places, evenly spread over 0..num_items - 1."""
  return np.linspace(0, num_items - 1, min(count, num_items)).astype(int)
