# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/tagged.py."""

import json

import numpy as np
import pytest

from realm_jax.data import tagged
from realm_jax.data.entities import LabeledSpan
from realm_jax.data.records import Document

_CHARACTERS = ["a", "é", "中", "𝄞", " ", "\n", "\u2028", "e\u0301"]


def test_characters_come_back_from_bytes():
  rng = np.random.default_rng(0)
  for _ in range(50):
    text = "".join(rng.choice(_CHARACTERS, size=12))
    pairs = [(0, len(text)), (3, 3 + int(rng.integers(1, 9)))]
    spans = [LabeledSpan(*pair, "X") for pair in pairs]
    line = tagged.tagged_line(Document(title="", text=text), spans, pairs)
    found = json.loads(line)
    assert "\n" not in line and found["text"] == text
    for start, end in found["byte_spans"]:
      text.encode()[start:end].decode()
    for name in ("byte_spans", "byte_sentences"):
      assert tagged.characters_of_bytes(text, found[name], name, "x") == pairs


@pytest.mark.parametrize(
  ("pairs", "message"),
  [
    ([[0, 9]], r"x: 'spans' has \[0, 9\], which is no stretch"),
    ([[2, 1]], r"\[2, 1\]"),
    ([[-1, 1]], r"\[-1, 1\]"),
    ([[0, 2]], r"\[0, 2\]"),  # Inside the second character.
    ([3], "must be a list of"),
  ],
)
def test_offsets_that_do_not_fit_are_refused(pairs, message):
  with pytest.raises(ValueError, match=message):
    tagged.characters_of_bytes("aé", pairs, "spans", "x")
