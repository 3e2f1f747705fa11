# SPDX-License-Identifier: Apache-2.0
"""Measures an index version before it is used: recall, and what changed."""

import grain
import numpy as np

from realm_jax.index.search import Neighbors, overlap_at_k
from realm_jax.index.store import IndexVersion
from realm_jax.shapes import TokenRows
from realm_jax.train.search import Searcher

_QUERIES = 512  # Evenly spread over the validation file.
_DEPTH = 20
_RECALLS = (1, 5, 20)


class RecallProbe:
  """Searches a fixed set of validation queries with each new version.

  Queries are embedded with the version's own parameters, so the figures are
  the version's, whatever step the trainer has reached.
  """

  def __init__(
    self, searcher: Searcher, validation: grain.MapDataset | None
  ) -> None:
    """Draws the queries; without validation data nothing is measured."""
    self._searcher = searcher
    self._rows: TokenRows | None = None
    self._gold = np.zeros(0, np.int32)
    if validation is not None:
      count = min(_QUERIES, len(validation))
      places = np.linspace(0, len(validation) - 1, count).astype(int)
      examples = [validation[int(i)] for i in places]
      queries = [example["query"] for example in examples]
      self._rows = TokenRows(
        ids=np.stack([query["ids"] for query in queries]),
        segments=np.stack([query["segments"] for query in queries]),
        mask=np.stack([query["mask"] for query in queries]),
      )
      self._gold = np.array([example["gold_row"] for example in examples])

  def __call__(
    self, new: IndexVersion, old: IndexVersion | None
  ) -> dict[str, float]:
    """Returns recall@k of the gold passages, and overlap@20 with `old`."""
    if self._rows is None:
      return {}
    found = self._search(self._rows, new)
    scores = {}
    known = self._gold >= 0
    if known.any():
      hits = found.ids[known] == self._gold[known, None]
      for k in _RECALLS:
        scores[f"probe/recall_at_{k}"] = float(hits[:, :k].any(axis=1).mean())
    if old is not None:
      scores["swap/overlap_at_k"] = overlap_at_k(
        found, self._search(self._rows, old)
      )
    return scores

  def _search(self, rows: TokenRows, version: IndexVersion) -> Neighbors:
    return self._searcher.search(rows, version, _DEPTH)
