# SPDX-License-Identifier: Apache-2.0
"""Recall@k: how often the first k passages hold what was asked for."""

from collections.abc import Sequence

from jaxtyping import Bool
import numpy as np

from realm_jax.eval import scores

RECALL_AT = (1, 5, 20, 100)


def has_answer(text: str, answers: Sequence[str]) -> bool:
  """Whether a passage holds an answer as whole words, both normalised."""
  padded = f" {scores.normalise_answer(text)} "
  normal = (scores.normalise_answer(answer) for answer in answers)
  return any(f" {answer} " in padded for answer in normal if answer)


def recall_at(
  hits: Bool[np.ndarray, "n k"], depths: Sequence[int] = RECALL_AT
) -> dict[int, float]:
  """The share of queries with a hit among the first passages, by depth.

  Args:
    hits: whether passage `j` of query `i`, best first, is what was asked for.
    depths: numbers of passages; one that was not searched is left out, as
      nothing is known about it.
  """
  if not len(hits):
    raise ValueError("recall needs at least one query, got none.")
  depth_of_first = np.where(hits.any(1), hits.argmax(1), hits.shape[1])
  return {
    depth: float(np.mean(depth_of_first < depth))
    for depth in depths
    if depth <= hits.shape[1]
  }
