# SPDX-License-Identifier: Apache-2.0
"""The passages that a question was asked about."""

from jaxtyping import Int32
import numpy as np

from realm_jax.data import answers
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Question


def named_rows(uid: str, corpus: PassageCorpus, where: str) -> range:
  """Returns the rows of what a question or text names; none if it names none.

  A corpus cuts a long document into parts `uid`, `uid#1`, ...; the first has
  the document's own uid, which names them all.

  Args:
    uid: its "passage_uid"; "" if it names none.
    corpus: that is searched.
    where: the question stands, for the error.

  Raises:
    ValueError: no passage of the corpus has the uid.
  """
  if not uid:
    return range(0)
  row = corpus.row_of(uid)
  if row is None:
    raise ValueError(
      f"{where}: 'passage_uid' {uid!r} is not in the corpus "
      f"{corpus.directory}. Correct it, or leave it out."
    )
  parts = corpus.document_rows(row)
  return parts if row == parts.start else range(row, row + 1)


def holding_rows(
  question: Question, named: range, corpus: PassageCorpus
) -> Int32[np.ndarray, "g"]:
  """Returns which parts of what it names hold an answer; the first if none.

  Args:
    question: with its answers, or patterns.
    named: its `named_rows`.
    corpus: that these are of.
  """
  if len(named) < 2:
    return np.array(named, np.int32)
  holding = [
    part
    for part, passage in zip(named, corpus.passages(named), strict=True)
    if answers.occurs(question, passage.text)
  ]
  return np.array(holding or named[:1], np.int32)
