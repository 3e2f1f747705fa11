# SPDX-License-Identifier: Apache-2.0
"""What a version must show before it is published."""

from collections.abc import Callable

from jaxtyping import Float32, Int
import numpy as np

from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import (
  NO_PASSAGE,
  Index,
  Neighbors,
  recall_of,
)

_SAMPLES = 256  # Passages whose vectors serve as queries.
_REEMBEDDED = 32  # Passages that are embedded a second time.
_DEPTH = 10
_ROUNDING = 1e-5  # Of f32 sums in another order, over the largest score.
_BLOCK_ROWS = 2**16

Embed = Callable[[Int[np.ndarray, "n"]], Float32[np.ndarray, "n D"]]


class VersionRefused(ValueError):
  """A version failed a check, with what was measured."""

  def __init__(self, reason: str, checks: dict[str, float]) -> None:
    super().__init__(reason)
    self.checks = checks


def verify(
  index: Index,
  embeddings: Embeddings,
  embed: Embed | None,
  *,
  shape: tuple[int, int],
  min_recall: float,
  seed: int,
) -> dict[str, float]:
  """Measures a version, as it lies on the disk, and judges it.

  Args:
    index: the searcher, as a reader would load it.
    embeddings: as a reader would map them.
    embed: embeds passages by id with the version's parameters; None if these
      cannot give the vectors, which is then not checked.
    shape: (N, D) of the corpus and the embedder.
    min_recall: lowest recall@10 against exact search.
    seed: of the passages that are sampled.

  Returns:
    min_norm, max_norm, recall_at_10 (tie-aware, queries are sampled passages'
    own vectors) and self_retrieval (how often such a query finds its own
    passage among ten; low while the embedder is untrained).

  Raises:
    VersionRefused: naming what failed, with both values.
  """
  if embeddings.shape != shape:
    raise VersionRefused(
      f"Embeddings have shape {embeddings.shape}, the corpus needs {shape}.",
      {},
    )
  checks = _check_norms(embeddings)
  ids = np.random.default_rng(seed).permutation(len(embeddings))[:_SAMPLES]
  if embed is not None:
    _check_rows(embeddings, embed, ids[:_REEMBEDDED], checks)
  queries = embeddings[ids]
  k = min(_DEPTH, len(embeddings))
  found = index.search(queries, k)
  checks["self_retrieval"] = float((found.ids == ids[:, None]).any(1).mean())
  checks["recall_at_10"] = _recall(found, queries, embeddings, k)
  if checks["recall_at_10"] < min_recall:
    raise VersionRefused(
      f"recall@10 against exact search is {checks['recall_at_10']:.4f}, below "
      f"refresh.min_recall_at_10={min_recall}. Lower that, or search more "
      "exactly: see retrieval.scann, .device_dtype and .approximate.",
      checks,
    )
  return checks


def _check_norms(embeddings: Embeddings) -> dict[str, float]:
  norms = np.concatenate(
    [
      np.linalg.norm(block, axis=1)
      for _, block in embeddings.blocks(_BLOCK_ROWS)
    ]
  )
  bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
  if bad.size:
    raise VersionRefused(
      f"{bad.size} of {len(norms)} embeddings are zero or not finite; the "
      f"first is of passage {bad[0]}. The retriever's parameters have "
      "diverged.",
      {"num_bad": float(bad.size)},
    )
  return {"min_norm": float(norms.min()), "max_norm": float(norms.max())}


def _check_rows(
  embeddings: Embeddings,
  embed: Embed,
  ids: Int[np.ndarray, "n"],
  checks: dict[str, float],
) -> None:
  """That row i is passage i: length sorting must have been undone."""
  error = np.abs(embeddings[ids] - embed(ids)).max(axis=1)
  worst = int(error.argmax())
  checks["reembed_error"] = float(error[worst])
  if error[worst] > 1e-2 * checks["max_norm"]:
    raise VersionRefused(
      f"Passage {ids[worst]}, embedded again, differs from its row by "
      f"{error[worst]:.3g}, where vectors are up to {checks['max_norm']:.3g} "
      "long: rows and passages do not match.",
      checks,
    )


def _recall(
  found: Neighbors,
  queries: Float32[np.ndarray, "B D"],
  embeddings: Embeddings,
  k: int,
) -> float:
  # Scores are taken from the vectors, not from the searcher, so that a
  # searcher whose ids are off has no recall.
  ordered = np.sort(found.ids, axis=1)
  repeated = (ordered[:, 1:] == ordered[:, :-1]).any()
  if repeated or (found.ids == NO_PASSAGE).any():
    return 0.0
  scores = np.einsum("bd,bkd->bk", queries, embeddings[found.ids])
  exact = ExactIndex(embeddings).search(queries, k)
  largest = float(np.abs(exact.scores).max())
  return recall_of(
    Neighbors(found.ids, scores), exact, tolerance=_ROUNDING * largest
  )
