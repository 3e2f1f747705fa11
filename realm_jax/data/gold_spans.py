# SPDX-License-Identifier: Apache-2.0
"""Where the answers are among a passage's pieces: the reader's supervision."""

from collections.abc import Iterator, Sequence

from jaxtyping import Bool, Int, Int32
import numpy as np

from realm_jax.data import answers
from realm_jax.data.collate import JointRows
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Encoding, Tokenizer

Ids = Int32[np.ndarray, "_"]


def gold_spans(
  joints: JointRows,
  answer_ids: Sequence[Sequence[Ids]],
  other_spans: Sequence[Sequence[tuple[int, int]]],
  max_span: int,
) -> Bool[np.ndarray, "n T W"]:
  """Returns which spans of joint rows are answers.

  Args:
    joints: n questions, each with a passage.
    answer_ids: of each row, the pieces of its question's answer strings; every
      occurrence in the passage's body counts (ORQA).
    other_spans: of each row, further (first, stop) pieces of the body.
    max_span: W. Longer answers are left out, as is what the row cuts off.
  """
  ids = joints.rows["ids"]
  gold = np.zeros((*ids.shape, max_span), bool)
  for row, tokens in enumerate(ids):
    start, length = joints.body_starts[row], joints.body_lengths[row]
    body = tokens[start : start + length]
    for pieces in answer_ids[row]:
      if len(pieces) <= max_span:
        gold[row, start + occurrences(body, pieces), len(pieces) - 1] = True
    for first, stop in other_spans[row]:
      if stop <= length and stop - first <= max_span:
        gold[row, start + first, stop - first - 1] = True
  return gold


def occurrences(pieces: Ids, answer: Ids) -> Int[np.ndarray, "_"]:
  """Returns where `answer` starts in `pieces`, every time."""
  if not 0 < len(answer) <= len(pieces):
    return np.zeros(0, np.int64)
  windows = np.lib.stride_tricks.sliding_window_view(pieces, len(answer))
  return np.flatnonzero((windows == answer).all(axis=1))


def matched_spans(
  questions: Sequence[Question],
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  rows: Int32[np.ndarray, "n"],
) -> list[list[tuple[int, int]]]:
  """Returns the (first, stop) pieces where answers are as characters.

  Nothing in a passage cut inside a word, whose pieces are others than its
  text's.

  Args:
    questions: n of them, with patterns, or with answers to find as they are
      written: those that pieces do not spell. Of others, nothing is read.
    corpus: of the passages.
    tokenizer: the corpus' own.
    rows: a passage for each question.
  """
  found: list[list[tuple[int, int]]] = [[] for _ in questions]
  asking = [i for i, q in enumerate(questions) if q.patterns or q.answers]
  texts = [p.text for p in corpus.passages(rows[asking])]
  encodings = tokenizer.encode_batch(texts)
  for i, text, encoding in zip(asking, texts, encodings, strict=True):
    if np.array_equal(encoding.ids, corpus.body_ids(rows[i])):
      characters = answers.spans(questions[i], text)
      found[i] = list(covering_pieces(encoding, characters))
  return found


def covering_pieces(
  encoding: Encoding, characters: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
  """Yields the (first, stop) pieces that cover stretches of a text.

  The last piece may reach beyond its stretch. A stretch that starts inside a
  piece is left out: read from that piece on, the answer would begin otherwise.
  """
  for start, end in characters:
    first = int(np.searchsorted(encoding.ends, start, side="right"))
    stop = int(np.searchsorted(encoding.starts, end))
    if first < stop and encoding.starts[first] >= start:
      yield first, stop
