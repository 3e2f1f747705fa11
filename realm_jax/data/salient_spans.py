# SPDX-License-Identifier: Apache-2.0
"""Salient spans: names, dates and figures, which take knowledge to fill in.

REALM (section 3.4) masks named entities, found by a tagger trained on
CoNLL-2003, and dates, found by a regular expression. A `Tagger` is anything
that marks spans in a text; `RuleTagger` needs no model.
"""

from collections.abc import Iterator
import re
from typing import Protocol, runtime_checkable

from realm_jax.data.splitting import split_sentences


@runtime_checkable
class Tagger(Protocol):
  """Marks the salient spans of a text."""

  def tag(self, text: str) -> list[tuple[int, int]]:
    """Returns (start, end) characters, ascending, none overlapping."""
    ...


_MONTH = (
  r"(?:January|February|March|April|May|June|July|August|September|October"
  r"|November|December|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)"
)
_DAY = r"(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?:1\d{3}|20\d{2})"
_ERA = r"(?:BCE?|CE|AD)"
_DATE = rf"""
  {_DAY}\ (?:of\ )?{_MONTH}(?:,?\ {_YEAR})?
  | {_MONTH}\ {_DAY}(?!\d|,\d)(?:,?\ {_YEAR})?
  | {_MONTH},?\ {_YEAR}
  | \d{{1,4}}\ {_ERA}
  | {_YEAR}(?:s|[-\u2013/]\d{{2,4}})?(?![,.%]\d)
"""
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SCALE = r"(?:hundred|thousand|million|billion|trillion)"
_UNIT = r"""(?:
  sq\.?\ (?:km|mi|miles|kilometers) | (?:kilo|centi|milli)?met(?:er|re)s?
  | [kcm]?m[²2]? | km/h | mph | miles? | mi | feet | foot | ft | inch(?:es)?
  | acres? | hectares? | ha | tons? | tonnes? | kg | grams? | pounds?
  | years? | months? | weeks? | days? | hours? | minutes? | seconds?
  | degrees | °\ ?[CF] | barrels | bbl/day | [kMGT]?W(?:h)? | [kMG]?Hz
  | [KMGT]B | euros? | dollars? | USD | EUR | GBP | people | percent
  | per\ cent )"""
# A bare number takes no knowledge unless it is a long one.
_FIGURE = rf"""
  [$€£¥]\ ?{_NUMBER}(?:\ {_SCALE})?
  | -?{_NUMBER}\ ?%
  | -?{_NUMBER}(?:\ {_SCALE})?(?:\ |-)?{_UNIT}
  | -?{_NUMBER}\ {_SCALE}
  | \d+(?:,\d{{3}})+(?:\.\d+)? | \d+\.\d+ | \d{{4,}}
"""
_UPPER = r"[A-ZÀ-ÖØ-ÞĀĆČĎĐĒĞĪİŁŃŌŐŘŚŞŠŪŮŹŻŽ]"
# An abbreviation with points, an initial, or a word; "'s" is no part of it.
_WORD = rf"""(?:
  (?:Dr|Mr|Mrs|Mt|St)\.(?=\ {_UPPER}) | (?:{_UPPER}\.){{2,}}
  | {_UPPER}\.(?=\ {_UPPER})
  | {_UPPER}(?:\w | [-'\u2019](?!s\b)(?=[^\W\d_]))* )"""
_JOINT = (
  r"(?:(?:of|for|on)\ (?:the\ )?|(?:and|the|de|da|del|la|du|van|von|al|&)\ )"
)
_NAME = rf"{_WORD}(?:\ (?:{_JOINT})?{_WORD})*"
_SPAN = re.compile(
  rf"(?<![\w.])(?:(?P<date>{_DATE})|(?P<figure>{_FIGURE})|(?P<name>{_NAME}))"
  r"(?!\w)",
  re.VERBOSE,
)
# Capitalised for their place, not for what they name.
_COMMON = frozenset(
  re.findall(
    r"\w+",
    """A About According After All Almost Along Also Although Among An And
    Another Any Are Around As At Because Before Being Between Both But By
    Despite Did Do Does Due During Each Early Even Every Few First Following
    For From Had Has Have He Her Here His How However I If In Instead Into Is
    It Its Just Last Late Later Like Many Most Much My Near Neither No Nor
    Not Now Of On Once One Only Or Other Others Our Out Over Rather Second She
    Since So Some Such Than That The Their Then There These They This Those
    Though Three Through Thus To Today Two Under Unlike Until Upon Was We Were
    What When Where Whereas Whether Which While Who Whose Why Will With Within
    Without Would Yet You Your""",
  )
)
_OPENING = "\"'“\u2018(["
# A common word at the head of a name, and the joints that hung on it.
_HEAD = re.compile(r"(\w+) ?(?:[a-z&]+ )*")


class RuleTagger:
  """Marks dates, figures and capitalised names in English text by rule."""

  def tag(self, text: str) -> list[tuple[int, int]]:
    """Returns (start, end) characters, ascending, none overlapping."""
    first_letters = {
      end - len(text[start:end].lstrip(_OPENING))
      for start, end in split_sentences(text)
    }
    found = list(_find(text))
    inside = {
      text[start:end]
      for kind, start, end in found
      if kind == "name" and start not in first_letters
    }

    # One capital at the start of a sentence tells nothing, unless the text
    # has the word as a name elsewhere.
    def is_chance(kind: str, start: int, end: int) -> bool:
      word = text[start:end]
      at_start = kind == "name" and start in first_letters
      return at_start and " " not in word and word not in inside

    return [
      (start, end)
      for kind, start, end in found
      if not is_chance(kind, start, end)
    ]


def _find(text: str) -> Iterator[tuple[str, int, int]]:
  at = 0
  while match := _SPAN.search(text, at):
    head = _HEAD.match(text, match.start(), match.end())
    if match.lastgroup == "name" and head and head.group(1) in _COMMON:
      # Look again behind "In": "In July 1776" is a date with a word before.
      at = head.end()
    else:
      yield match.lastgroup or "", match.start(), match.end()
      at = match.end()
