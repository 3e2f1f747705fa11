# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/masking.py."""

import numpy as np
import pytest

from realm_jax.data import masking
from realm_jax.data.tokenize import Encoding


def _words(text):
  """One piece a character, words apart by a space."""
  kept = [i for i, character in enumerate(text) if character != " "]
  starts = np.array(kept, np.int32)
  return Encoding(starts + 100, starts, starts + 1)


def test_pieces_of_a_span_lie_inside_it():
  encoding = _words("ab cde f")
  assert masking.pieces_of(encoding, (3, 6)).tolist() == [2, 3, 4]
  assert masking.pieces_of(encoding, (2, 7)).tolist() == [2, 3, 4]


def test_a_span_that_leaves_the_text_has_no_pieces():
  cut = _words("ab cde f")[2:5]
  assert masking.pieces_of(cut, (3, 6)).size == 3
  assert masking.pieces_of(cut, (3, 8)).size == 0
  assert masking.pieces_of(cut, (0, 5)).size == 0
  assert masking.pieces_of(cut[:0], (3, 6)).size == 0


def test_a_piece_that_sticks_out_of_the_span_is_not_masked():
  encoding = Encoding(
    *(np.array(a, np.int32) for a in ([1, 2], [0, 2], [2, 5]))
  )
  assert masking.pieces_of(encoding, (1, 5)).tolist() == [1]


def test_all_of_a_long_span_is_masked_and_its_head_predicted():
  ids = np.arange(10, 16, dtype=np.int32)
  found = masking.mask_pieces(ids, np.array([1, 2, 3], np.int32), 4, 2)
  assert found.ids.tolist() == [10, 4, 4, 4, 14, 15]
  assert found.positions.tolist() == [1, 2]
  assert found.targets.tolist() == [11, 12]
  assert found.target_mask.all()
  assert ids.tolist() == list(range(10, 16))  # Untouched.


def test_a_short_span_leaves_slots_empty():
  ids = np.arange(10, 13, dtype=np.int32)
  found = masking.mask_pieces(ids, np.array([2], np.int32), 4, 3)
  assert found.positions.tolist() == [2, 0, 0]
  assert found.targets.tolist() == [12, 0, 0]
  assert found.target_mask.tolist() == [True, False, False]


def test_salient_spans_are_drawn_evenly():
  rng = np.random.default_rng(0)
  encoding = _words("ab cde f")
  spans = [(0, 2), (3, 6), (2, 3), (0, 99)]  # The last two have no pieces.
  draws = [
    tuple(masking.choose_pieces("salient", encoding, spans, 9, rng).tolist())
    for _ in range(400)
  ]
  assert set(draws) == {(0, 1), (2, 3, 4)}
  assert 150 < draws.count((0, 1)) < 250


@pytest.mark.parametrize(
  ("scheme", "spans"), [("span", [(0, 1)]), ("salient", [])]
)
def test_random_spans_are_whole_words(scheme, spans):
  """Also where no salient span is to be had."""
  rng = np.random.default_rng(0)
  encoding = _words("ab cde f ghij k")
  first, stop = {0, 2, 5, 6, 10}, {2, 5, 6, 10, 11}
  seen = set()
  for _ in range(300):
    chosen = masking.choose_pieces(scheme, encoding, spans, 9, rng)
    assert chosen[0] in first
    assert chosen[-1] + 1 in stop or len(chosen) == 9
    np.testing.assert_array_equal(np.diff(chosen), 1)
    seen.add(int(chosen[0]))
  assert seen == first


def test_random_spans_do_not_exceed_the_predictions():
  rng = np.random.default_rng(0)
  encoding = _words("abcdefgh")
  chosen = masking.choose_pieces("span", encoding, [], 3, rng)
  assert chosen.tolist() == [0, 1, 2]


def test_random_tokens_are_fifteen_percent_anywhere():
  rng = np.random.default_rng(0)
  encoding = _words("a" * 40)
  seen = set()
  for _ in range(100):
    chosen = masking.choose_pieces("token", encoding, [], 9, rng).tolist()
    assert len(chosen) == 6 and chosen == sorted(set(chosen))
    seen |= set(chosen)
  assert seen == set(range(40))
  assert len(masking.choose_pieces("token", encoding, [], 2, rng)) == 2
  assert len(masking.choose_pieces("token", encoding[:1], [], 2, rng)) == 1
