# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/splitting.py."""

import numpy as np
import pytest

from realm_jax.data import splitting
from realm_jax.data.tokenize import Encoding


@pytest.mark.parametrize(
  "sentences",
  [
    ["It rains.", "It pours!", "Does it?", "5 days long."],
    ["Dr. J. Smith met Mr. No. 5 of the U.S. Navy.", "He left."],
    ['He said "no."', "(She agreed.)", "“Fine.”", "Then they ate."],
    ["A list, e.g. Apples or i.e. Pears etc. And more."],
    ["So do I.", "You do not."],
    ["Pi is 3.14 or so... more or less."],
    ["Was it in St. Pölten?!", "Élan, surely."],
  ],
)
def test_sentences_end_where_a_reader_ends_them(sentences):
  text = " ".join(sentences)
  found = [text[start:end] for start, end in splitting.split_sentences(text)]
  assert found == sentences


def test_line_breaks_end_sentences_and_blanks_belong_to_none():
  text = "  A head \n\n a line\n "
  found = [text[start:end] for start, end in splitting.split_sentences(text)]
  assert found == ["A head", "a line"]
  assert splitting.split_sentences(" \n ") == []


def _words(lengths):
  """Pieces of `lengths` characters, a space between; 0: none between."""
  starts, ends, at = [], [], 0
  for length in lengths:
    at += 1 if length > 0 else 0
    starts.append(at)
    at += abs(length)
    ends.append(at)
  return Encoding(
    np.arange(len(lengths), dtype=np.int32),
    np.array(starts, np.int32),
    np.array(ends, np.int32),
  )


def _packed(encoding, bounds, budget):
  packed = splitting.pack_sentences(
    encoding, np.array(bounds, np.int32), budget
  )
  return [passage.tolist() for passage in packed]


def test_packing_is_greedy_and_keeps_sentences_whole():
  encoding = _words([2] * 10)
  assert _packed(encoding, [0, 3, 5, 6, 10], 5) == [[0, 3, 5], [5, 6, 10]]
  assert _packed(encoding, [0, 3, 5, 6, 10], 10) == [[0, 3, 5, 6, 10]]


def test_a_long_sentence_is_cut_between_words():
  # Negative: glued to the piece before, as "##" pieces are.
  encoding = _words([2, 2, 2, -2, -2, 2, 2])
  assert _packed(encoding, [0, 7], 4) == [[0, 2], [2, 6], [6, 7]]
  # Without a space in reach it is cut anywhere, and nothing is lost.
  assert _packed(_words([2] + [-2] * 6), [0, 7], 3) == [
    [0, 3],
    [3, 6],
    [6, 7],
  ]


def test_nothing_makes_no_passage():
  assert _packed(_words([]), [0], 5) == []


def test_every_piece_is_in_one_passage_and_none_is_too_long():
  rng = np.random.default_rng(0)
  for _ in range(50):
    encoding = _words(rng.choice([2, -2], size=rng.integers(1, 60)))
    inner = rng.choice(
      len(encoding), size=min(4, len(encoding) - 1), replace=False
    )
    bounds = np.unique([0, *inner, len(encoding)])
    budget = int(rng.integers(1, 12))
    packed = _packed(encoding, bounds, budget)
    assert [p[0] for p in packed[1:]] == [p[-1] for p in packed[:-1]]
    assert packed[0][0] == 0 and packed[-1][-1] == len(encoding)
    assert max(p[-1] - p[0] for p in packed) <= budget


def test_bounds_are_the_first_pieces_of_sentences(tiny_tokenizer):
  text = "The capital of Bakodia. It became free. In 1901."
  encoding = tiny_tokenizer.encode(text)
  sentences = splitting.split_sentences(text)
  bounds = splitting.piece_bounds(encoding, sentences)
  firsts = encoding.starts[bounds[:-1]].tolist()
  assert firsts == [start for start, _ in sentences]
  assert bounds[-1] == len(encoding)
