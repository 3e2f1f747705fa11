# SPDX-License-Identifier: Apache-2.0
import unicodedata

import pytest

from realm_jax.eval import scores


@pytest.mark.parametrize(
  ("text", "normal"),
  [
    ("The  Eiffel Tower.", "eiffel tower"),
    ("an apple, a day", "apple day"),
    ("U.S.A.", "usa"),
    ("N'Djamena", "ndjamena"),
    ("theatre", "theatre"),  # "the" only as a whole word.
    ("10,000 km", "10000 km"),
    ("\tBuenos\n Aires ", "buenos aires"),
    ("the", ""),
  ],
)
def test_normalisation_by_hand(text, normal):
  assert scores.normalise_answer(text) == normal


def test_composed_and_decomposed_accents_are_equal():
  composed = unicodedata.normalize("NFC", "São Tomé")
  decomposed = unicodedata.normalize("NFD", "São Tomé")
  assert composed != decomposed
  assert scores.exact_match(composed, [decomposed])


def test_punctuation_goes_before_articles():
  # "a.b" joins to "ab", which holds no article any more.
  assert scores.normalise_answer("a.b the-an") == "ab thean"


def test_exact_match_takes_the_best_reference():
  assert scores.exact_match("the Euro", ["dollar", "euro"])
  assert not scores.exact_match("euros", ["dollar", "euro"])
  assert not scores.exact_match("euro", [])


def test_f1_by_hand():
  # 2 shared words of 3 predicted and 4 wanted: P 2/3, R 1/2, F1 4/7.
  got = scores.token_f1("Port of Spain", ["Port Spain City Centre"])
  assert got == pytest.approx(4 / 7)


def test_f1_counts_a_repeated_word_as_often_as_both_have_it():
  # "new new york" and "new york city": shared new, york; P 2/3, R 2/3.
  assert scores.token_f1("new new york", ["New York City"]) == pytest.approx(
    2 / 3
  )


def test_f1_takes_the_best_reference_and_is_zero_without_overlap():
  assert scores.token_f1("rome", ["paris", "rome"]) == 1.0
  assert scores.token_f1("rome", ["paris"]) == 0.0
  assert scores.token_f1("rome", []) == 0.0


def test_f1_of_empty_strings_is_one_only_if_both_are_empty():
  assert scores.token_f1("the", ["a"]) == 1.0
  assert scores.token_f1("", ["rome"]) == 0.0
