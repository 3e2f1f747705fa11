# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/salient_spans.py."""

import pytest

from realm_jax.data.salient_spans import RuleTagger, Tagger


def _tagged(text):
  return [text[start:end] for start, end in RuleTagger().tag(text)]


@pytest.mark.parametrize(
  ("text", "dates"),
  [
    ("It was signed on 4 July 1776 there.", ["4 July 1776"]),
    ("It was signed on July 4, 1776, there.", ["July 4, 1776"]),
    ("In July 1776 it was signed.", ["July 1776"]),
    ("In 1776 it was signed.", ["1776"]),
    ("By the 1990s it was gone.", ["1990s"]),
    ("the years 1914-18 and 1939", ["1914-18", "1939"]),
    ("on the 3rd of May", ["3rd of May"]),
    ("it fell in 44 BC at last", ["44 BC"]),
  ],
)
def test_dates(text, dates):
  assert _tagged(text) == dates


@pytest.mark.parametrize(
  ("text", "figures"),
  [
    ("about 652,230 sq km of land", ["652,230 sq km"]),
    ("it costs $2.5 billion or 3.5% more", ["$2.5 billion", "3.5%"]),
    ("some 5 million people live", ["5 million people"]),
    ("at -408 m the lowest", ["-408 m"]),
    ("it has 25.5 years and 1,234 of them", ["25.5 years", "1,234"]),
    ("they had 7 dogs and 12 cats", []),
    ("vitamin B12 and x86 are no figures", ["B12"]),
  ],
)
def test_figures_need_a_unit_or_length(text, figures):
  assert _tagged(text) == figures


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("it lies near New York and Paris", ["New York and Paris"]),
    ("the Bank of the West and the king", ["Bank of the West"]),
    ("the works of J. K. Rowling sell", ["J. K. Rowling"]),
    ("they climbed Mt. Everest twice", ["Mt. Everest"]),
    ("he saw Bolen's walls and Jean-Paul", ["Bolen", "Jean-Paul"]),
    ("the U.S. Navy came", ["U.S. Navy"]),
    ("in Łódź and Århus", ["Łódź and Århus"]),
  ],
)
def test_names_are_runs_of_capitals_with_their_joints(text, names):
  assert _tagged(text) == names


def test_a_capital_at_the_start_of_a_sentence_is_no_name():
  assert _tagged("Rivers flow. Fish swim in the Nile. “Boats” sail.") == [
    "Nile"
  ]


def test_unless_the_text_uses_it_as_a_name_elsewhere():
  assert _tagged("Avaria is small. They love Avaria.") == ["Avaria", "Avaria"]


def test_common_words_are_cut_from_the_head_of_a_name():
  text = "The United States won. In Paris. However, I and The Hague lost."
  assert _tagged(text) == ["United States", "Paris", "Hague"]


def test_spans_ascend_and_do_not_overlap():
  text = "On 4 July 1776 the United States, 2.5 million people, left Britain."
  spans = RuleTagger().tag(text)
  flat = [character for span in spans for character in span]
  assert flat == sorted(flat)
  assert len(spans) == 4


def test_plain_text_has_no_spans():
  assert RuleTagger().tag("nothing to see here") == []
  assert RuleTagger().tag("") == []


def test_the_rules_are_a_tagger():
  assert isinstance(RuleTagger(), Tagger)
