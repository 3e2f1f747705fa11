# SPDX-License-Identifier: Apache-2.0
"""Recall@k: how often the first k found are, or hold, what was asked for."""

from collections.abc import Sequence
import functools
import unicodedata

from jaxtyping import Bool, Float, Int, Int32
import numpy as np
import regex

from realm_jax.data import answers
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Question

RECALL_AT = (1, 5, 20, 100)
# Of DPR's tokenizer: accents belong to words, each mark stands alone.
_WORD_OR_MARK = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def answer_hits(
  neighbor_ids: Int32[np.ndarray, "n k"],
  corpus: PassageCorpus,
  questions: Sequence[Question],
) -> Bool[np.ndarray, "n k"]:
  """Whether each found passage's text holds an answer to its question.

  A string counts where its words and marks stand in a row, in any case (DPR's
  rule, as for its recall@k); a pattern wherever it matches the text as it is.
  Each passage is read once.

  Args:
    neighbor_ids: rows of the corpus; negative for none.
    corpus: of the passages.
    questions: n of them.
  """
  wanted = [_Wanted(question) for question in questions]
  depth = neighbor_ids.shape[1]
  flat = neighbor_ids.ravel()
  order = np.argsort(flat, kind="stable")
  rows, starts = np.unique(flat[order], return_index=True)
  hits = np.zeros(flat.shape, bool)
  for row, places in zip(rows, np.split(order, starts[1:]), strict=True):
    if row >= 0:
      text = _Text(corpus.passage(row).text)
      hits[places] = [wanted[i].is_in(text) for i in (places // depth).tolist()]
  return hits.reshape(neighbor_ids.shape)


def first_hits(hits: Bool[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
  """Returns the place of each question's first hit, from 0; k for none."""
  return np.where(hits.any(axis=1), hits.argmax(axis=1), hits.shape[1])


def named_places(
  neighbor_ids: Int32[np.ndarray, "n k"],
  named: Sequence[range],
  corpus: PassageCorpus,
) -> Int[np.ndarray, " n"]:
  """Returns the place of what each question names, from 0; k for none.

  Where that is a document of several parts, documents are counted: the parts
  of one that are found before it take one place.

  Args:
    neighbor_ids: rows of the corpus, best first; negative for none.
    named: of each question, see `named_rows`.
    corpus: of the passages.
  """
  starts = np.array([rows.start for rows in named])[:, None]
  stops = np.array([rows.stop for rows in named])[:, None]
  hits = (starts <= neighbor_ids) & (neighbor_ids < stops)
  places = first_hits(hits)
  for i in np.flatnonzero(hits.any(axis=1)).tolist():
    if named[i] == corpus.document_rows(named[i].start):
      before = corpus.document_numbers(neighbor_ids[i, : places[i]])
      places[i] = len(np.unique(before))
  return places


def search_depth(corpus: PassageCorpus) -> int:
  """How many passages to find for recall at the last of RECALL_AT.

  Of documents cut into parts, as many for each as they have on average.
  """
  parts = -(-len(corpus) // corpus.num_documents)
  return min(max(RECALL_AT) * parts, len(corpus))


def recall_columns(
  answer_places: Int[np.ndarray, " n"],
  passage_places: Int[np.ndarray, " n"],
  has_gold: Bool[np.ndarray, " n"],
  depth: int,
) -> dict[str, Float[np.ndarray, " n"]]:
  """Returns 1 for each question with its place among the first, else 0.

  Args:
    answer_places: of the first passage that holds an answer, from 0.
    passage_places: `named_places`.
    has_gold: whether a question names a passage; where it does not, recall by
      passage is NaN.
    depth: how many passages were searched for; of more, nothing is known.

  Returns:
    answer_recall_at_<k> and passage_recall_at_<k>, k in RECALL_AT.
  """
  columns = {}
  for kind, places in (("answer", answer_places), ("passage", passage_places)):
    for k in RECALL_AT:
      if k <= depth:
        column = (places < k).astype(np.float64)
        if kind == "passage":
          column[~has_gold] = np.nan
        columns[f"{kind}_recall_at_{k}"] = column
  return columns


class _Text:
  """A passage's text, cut into words when that is first asked for."""

  def __init__(self, text: str) -> None:
    self.text = text

  @functools.cached_property
  def words(self) -> str:
    return _words(self.text)


class _Wanted:
  """A question's answers, ready to be looked for."""

  def __init__(self, question: Question) -> None:
    words = [_words(answer) for answer in question.answers]
    # What has no word and no mark would be in every text.
    self._words = [each for each in words if each.strip()]
    self._patterns = Question(text=question.text, patterns=question.patterns)

  def is_in(self, text: _Text) -> bool:
    return any(words in text.words for words in self._words) or answers.occurs(
      self._patterns, text.text
    )


def _words(text: str) -> str:
  """Words and marks in lower case, with a space on either side of each."""
  found = _WORD_OR_MARK.findall(unicodedata.normalize("NFD", text).lower())
  return f" {' '.join(found)} "
