# SPDX-License-Identifier: Apache-2.0
"""What every search back end offers: the passages of largest inner product."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float32, Int32
import numpy as np

# Fills a row of which the corpus has too few passages (k > N).
NO_PASSAGE = -1


class Neighbors(NamedTuple):
  """The best passages of each query, best first.

  Where the corpus has fewer than k passages, the rest of a row is
  (NO_PASSAGE, -inf).
  """

  ids: Int32[np.ndarray, "B k"]  # Rows of the corpus.
  scores: Float32[np.ndarray, "B k"]  # Inner products, descending.


@runtime_checkable
class Index(Protocol):
  """Passages by inner product; threads may share one."""

  def search(self, queries: Float32[np.ndarray, "B D"], k: int) -> Neighbors:
    """Returns the k best passages of each query.

    Raises:
      ValueError: k < 1, or queries of another width, or not finite.
    """
    ...


def check_search(queries: Float32[np.ndarray, "B D"], k: int, dim: int) -> None:
  """Raises ValueError where `Index.search` says so."""
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}.")
  if queries.shape[1] != dim:
    raise ValueError(
      f"Queries have width {queries.shape[1]}, the index has D={dim}: they "
      "come from another embedder than its passages."
    )
  if not np.isfinite(queries).all():
    bad = int((~np.isfinite(queries).all(axis=1)).sum())
    raise ValueError(
      f"{bad} of {len(queries)} queries are not finite: the query encoder's "
      "parameters have diverged. Lower the learning rate."
    )


def overlap_at_k(first: Neighbors, second: Neighbors) -> float:
  """Mean share of a query's passages that two searches have in common.

  Both must be of the same queries and the same k.
  """
  if first.ids.shape != second.ids.shape:
    raise ValueError(
      f"Overlap needs the same queries and k, got {first.ids.shape} and "
      f"{second.ids.shape} neighbours."
    )
  found = first.ids != NO_PASSAGE
  common = (first.ids[:, :, None] == second.ids[:, None, :]).any(axis=2)
  return float((common & found).sum() / max(found.sum(), 1))


def recall_of(found: Neighbors, exact: Neighbors, tolerance: float) -> float:
  """Share of the exact neighbours' places that a search filled as well.

  A passage counts if it scores at least as well as the last exact one, less
  `tolerance`: among equal scores any choice is right.

  Args:
    found: with distinct passages, and scores that are true inner products.
    exact: of the same queries and k.
    tolerance: by which rounding may change a score.
  """
  wanted = exact.ids != NO_PASSAGE
  good = found.ids != NO_PASSAGE
  good &= found.scores >= exact.scores[:, -1:] - tolerance
  return float((good & wanted).sum() / max(wanted.sum(), 1))
