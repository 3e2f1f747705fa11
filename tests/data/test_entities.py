# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/entities.py."""

import pytest

from realm_jax.data.entities import LabeledSpan, decode_labels, merge_spans


@pytest.mark.parametrize(
  ("labels", "expected"),
  [
    ("O O", []),
    ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
    # IOB2: two names of one kind, side by side.
    ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
    # IOB1: I- begins a name, and B- only parts it from the one before.
    (
      "I-PER I-PER B-PER O I-LOC",
      [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")],
    ),
    # What no annotator would write: the kind changes inside.
    ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
    # BIOES and BILOU.
    ("B-ORG E-ORG I-ORG S-LOC", [(0, 2, "ORG"), (2, 3, "ORG"), (3, 4, "LOC")]),
    ("B-ORG L-ORG U-LOC U-LOC", [(0, 2, "ORG"), (2, 3, "LOC"), (3, 4, "LOC")]),
    # No prefixes.
    ("PER PER LOC O", [(0, 2, "PER"), (2, 3, "LOC")]),
    ("", []),
  ],
)
def test_labels_spell_names(labels, expected):
  assert decode_labels(labels.split()) == expected


def test_the_longest_of_spans_that_overlap_is_kept():
  names = [LabeledSpan(0, 5, "MISC"), LabeledSpan(20, 22, "LOC")]
  dates = [LabeledSpan(0, 3, "DATE"), LabeledSpan(19, 25, "DATE")]
  assert merge_spans(names, dates) == [names[0], dates[1]]


def test_of_equally_long_ones_the_first_is_kept():
  one, other = LabeledSpan(0, 3, "PER"), LabeledSpan(2, 5, "LOC")
  assert merge_spans([other], [one]) == [one]
  date = LabeledSpan(0, 3, "DATE")
  assert merge_spans([one], [date]) == [one]
  assert merge_spans([], []) == []
