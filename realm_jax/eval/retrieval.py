# SPDX-License-Identifier: Apache-2.0
"""Recall@k: how often the first k passages hold what was asked for."""

from collections.abc import Sequence
import functools

from jaxtyping import Bool, Int32
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.eval import scores

RECALL_AT = (1, 5, 20, 100)
_KEPT_TEXTS = 2**16  # Passages are found again and again.


def recall_at(
  hits: Bool[np.ndarray, "n k"], depths: Sequence[int] = RECALL_AT
) -> dict[int, float]:
  """The share of queries with a hit among the first passages, by depth.

  Args:
    hits: whether passage `j` of query `i`, best first, is what was asked for.
    depths: numbers of passages; one that was not searched is left out, as
      nothing is known about it.

  Raises:
    ValueError: there is no query.
  """
  if not len(hits):
    raise ValueError("recall needs at least one query, got none.")
  depth_of_first = np.where(hits.any(1), hits.argmax(1), hits.shape[1])
  return {
    depth: float(np.mean(depth_of_first < depth))
    for depth in depths
    if depth <= hits.shape[1]
  }


def has_answer(text: str, answers: Sequence[str]) -> bool:
  """Whether a text holds an answer as whole words, both normalised."""
  return _holds(_words(text), [_words(answer) for answer in answers])


def answer_hits(
  neighbor_ids: Int32[np.ndarray, "n k"],
  corpus: PassageCorpus,
  answers: Sequence[Sequence[str]],
) -> Bool[np.ndarray, "n k"]:
  """Whether each found passage's text holds one of its query's answers."""

  @functools.lru_cache(_KEPT_TEXTS)
  def words_of(row: int) -> str:
    return _words(corpus.passage(row).text)

  hits = np.zeros(neighbor_ids.shape, bool)
  for i, references in enumerate(answers):
    wanted = [_words(answer) for answer in references]
    for j, row in enumerate(neighbor_ids[i].tolist()):
      hits[i, j] = row >= 0 and _holds(words_of(row), wanted)
  return hits


def recall_figures(
  neighbor_ids: Int32[np.ndarray, "n k"],
  corpus: PassageCorpus,
  answers: Sequence[Sequence[str]],
  gold_rows: Sequence[int | None],
) -> dict[str, float]:
  """Recall by answer string, and by passage where all queries name theirs.

  Args:
    neighbor_ids: rows of the corpus, best first; negative for none.
    corpus: of the passages.
    answers: accepted strings of each query.
    gold_rows: the passage of each query, None where it names none.

  Returns:
    answer_recall_at_<k> and passage_recall_at_<k>, k in RECALL_AT.
  """
  kinds = {"answer": answer_hits(neighbor_ids, corpus, answers)}
  if None not in gold_rows:
    kinds["passage"] = neighbor_ids == np.array(gold_rows)[:, None]
  return {
    f"{kind}_recall_at_{depth}": value
    for kind, hits in kinds.items()
    for depth, value in recall_at(hits).items()
  }


def _words(text: str) -> str:
  """Normalised words with a space on either side of each."""
  return f" {scores.normalise_answer(text)} "


def _holds(words: str, wanted: Sequence[str]) -> bool:
  return any(answer in words for answer in wanted if answer.strip())
