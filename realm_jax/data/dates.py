# SPDX-License-Identifier: Apache-2.0
"""Dates in English text, by a grammar (REALM section 3.4 masks them).

A rule of the grammar is a pattern in which `<name>` stands for another rule.
What a production matches is a date if its day is in its month and its years
ascend: "31 June 1900" is none, and "June 1900" in it is one.
"""

import calendar
from typing import Any

import regex

_MONTHS = (
  *("January", "February", "March", "April", "May", "June", "July"),
  *("August", "September", "October", "November", "December"),
)
_NUMBERS = {name[:3]: number for number, name in enumerate(_MONTHS, start=1)}
_LEAP_YEAR = 2000  # The year of a day that names none.

_RULES = {
  "full_month": "|".join(_MONTHS),
  "short_month": r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?",
  "month": "(?P<month><full_month>|<short_month>)",
  # "May" and "March" are words, too: alone, they need a preposition.
  "lone_month": r"""
    (?:January|February|April|June|July|September|October|November|December)
    | (?<=\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Bb]y|[Dd]uring|[Ee]arly|[Ll]ate)\ )
      (?:May|March|August)""",
  "weekday": "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
  "ordinal_word": r"""
    (?:twenty|thirty)-(?:first|second|third|fourth|fifth|sixth|seventh|eighth
    |ninth) | twentieth | thirtieth | first | second | third | fourth | fifth
    | sixth | seventh | eighth | ninth | tenth | eleventh | twelfth
    | thirteenth | fourteenth | fifteenth | sixteenth | seventeenth
    | eighteenth | nineteenth""",
  "day": r"(?P<day>\d{1,2})(?:st|nd|rd|th)?(?!\d)",
  "year": r"(?P<year>1\d{3}|20\d{2})(?!\d)",
  "era": r"(?:BCE?|CE|AD|B\.C\.(?:E\.)?|A\.D\.|C\.E\.)",
  "era_year": r"\d{1,4}\ ?<era>|(?:AD|A\.D\.)\ \d{1,4}",
  "any_year": "<era_year>|<year>",
  "dash": r"\ ?[-\u2013\u2014]\ ?",
  "to": r"<dash>|/|\ (?:to|and|until|till|through)\ ",
  "part": r"(?:[Ee]arly|[Mm]id(?:dle)?|[Ll]ate)(?:-|\ )",
  "season": r"(?:[Ss]pring|[Ss]ummer|[Aa]utumn|[Ff]all|[Ww]inter)",
  # Productions: each is a date.
  "day_month": r"""
    (?:<weekday>,?\ )? <day> (?:(?:<to>)<day>)? \ (?:of\ )?<month>
    (?:(?:<to>)<day>\ <month>)? (?:,?\ (?:<any_year>))?""",
  "month_day": r"""
    (?:<weekday>,?\ )? <month> \ <day> (?:(?:<to>)(?:<month>\ )?<day>)?
    (?:,?\ (?:<any_year>))?""",
  "two_days": r"""
    <day>\ <month>\ <year>(?:<to>)<day>\ <month>\ <year>
    | <month>\ <day>,?\ <year>(?:<to>)<month>\ <day>,?\ <year>""",
  "named_day": r"""
    (?:<ordinal_word>)\ (?:day\ )?of\ <month>
    (?:,?\ (?:<any_year>))?""",
  "month_year": r"""
    (?:<part>)? <month> (?:(?:<to>)<month>)? (?:,|\ of)?\ (?:<any_year>)""",
  "month_alone": r"(?:<part>)?(?:<lone_month>)",
  "iso": r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?![-\d])",
  "numeric": r"""
    (?P<day>\d{1,2})(?P<mark>[./])(?P<month>\d{1,2})(?P=mark)(?P<year>\d{4})
    | (?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})""",
  "season_year": r"""
    (?:<part>)?<season>(?:,|\ of)?\ <year>(?:[-\u2013/]\d{2}(?!\d))?""",
  "decade": r"""
    (?:<part>)?<year>['\u2019]?s(?:(?:<to>)<year>['\u2019]?s)?(?:\ (?:<era>))?
    | (?:<part>)?['\u2019]\d0s | (?<=[Tt]he\ )(?:<part>)?
    (?:twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties)""",
  "century": r"""
    (?:<part>)? (?:<nth>)(?:(?:<to>)(?:<nth>))? (?:\ |-)centur(?:y|ies)
    (?:\ <era>)?""",
  "nth": r"\d{1,2}(?:st|nd|rd|th)|<ordinal_word>",
  "years": r"""
    (?P<first>1\d{3}|20\d{2})(?:<dash>|/|(?<=from\ \d{4})\ to\ )
    (?P<last>\d{4}|\d{2})(?!-?\d) | <era_year>(?:<dash>|\ to\ )(?:<era_year>)
    | \d{1,4}(?:<dash>)\d{1,4}\ <era>""",
  "year_alone": r"(?:<part>)?(?:<era_year>|(?<!<not_a_year>)<year>(?!<unit>))",
  "weekday_alone": "<weekday>",
  # A number of four digits that counts something.
  "not_a_year": r"(?:[$€£¥#]|[Nn]o\.\ ?|[Nn]umber\ |\d[.,:/])",
  "unit": r"""
    [.,:]\d | -\d+-\d | %
    | [\ -]?(?:[kcm]?m|km²|ft|feet|foot|mi|miles?|yards?|acres?|hectares?|ha
      |kg|tons?|tonnes?|pounds?|lbs?|met(?:er|re)s?|kilomet(?:er|re)s?|mph
      |[kMG]?[WH]z?|people|persons?|men|women|children|students|pupils
      |soldiers|troops|workers|employees|members|inhabitants|residents
      |households|families|dead|seats|votes|copies|pages|words|games|times
      |hours?|minutes?|seconds?|days?|weeks?|months?|years?|points|dollars?
      |euros?|percent|per\ cent|million|billion)\b""",
}
_PRODUCTIONS = (
  *("two_days", "day_month", "month_day", "named_day", "month_year"),
  *("iso", "numeric", "season_year", "decade", "century", "years"),
  *("year_alone", "month_alone", "weekday_alone"),
)


def _expanded(rule: str) -> str:
  return regex.sub(
    r"(?<!\?P)<(\w+)>", lambda name: f"(?:{_expanded(_RULES[name[1]])})", rule
  )


def _compiled(name: str) -> regex.Pattern[str]:
  body = _expanded(_RULES[name])
  return regex.compile(rf"(?<![\w.])(?:{body})(?!\w)", regex.VERBOSE)


_PARSERS = tuple(_compiled(name) for name in _PRODUCTIONS)
# Where a date may start, which is quick to find.
_START = regex.compile(
  rf"\b(?=\d|(?:{_expanded('<full_month>|<weekday>|<short_month>')}"
  r"|[Ee]arly|[Mm]id|[Ll]ate|[Ss]pring|[Ss]ummer|[Aa]utumn|[Ff]all|[Ww]inter"
  rf"|AD|A\.D\.|{_expanded('<ordinal_word>')})\b"
  r"|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ies\b)|['\u2019]\d0s",
  regex.VERBOSE,
)


def find_dates(text: str) -> list[tuple[int, int]]:
  """Returns (start, end) characters of each date, ascending, none overlapping.

  Of several dates at one place the longest is taken, and of dates that overlap
  the first.
  """
  found = []
  at = 0
  while start := _START.search(text, at):
    end = _longest(text, start.start())
    if end > start.start():
      found.append((start.start(), end))
    at = max(end, start.start() + 1)
  return found


def _longest(text: str, start: int) -> int:
  """Returns where the longest date at `start` ends, or 0."""
  matches = (parser.match(text, start) for parser in _PARSERS)
  return max((m.end() for m in matches if m and _is_valid(m)), default=0)


def _is_valid(match: Any) -> bool:
  found = {name: match.captures(name) for name in match.re.groupindex}
  days = [int(day) for day in found.get("day", ())]
  months = [_number(month) for month in found.get("month", ())]
  years = [int(year) for year in found.get("year", ())]
  if not all(1 <= month <= 12 for month in months):
    return False
  # "4-6 July 1776" is two days of one month and one year.
  dates = zip(
    days,
    months if len(months) > 1 else months * len(days),
    years if len(years) > 1 else (years or [_LEAP_YEAR]) * len(days),
    strict=False,
  )
  if not all(1 <= d <= calendar.monthrange(y, m)[1] for d, m, y in dates):
    return False
  return years == sorted(years) and _ascends(found)


def _number(month: str) -> int:
  return int(month) if month.isdigit() else _NUMBERS[month[:3]]


def _ascends(found: dict[str, list[str]]) -> bool:
  """Whether the years of an interval do: "1914-18", "1999-2001"."""
  if not found.get("first"):
    return True
  (first,), (last,) = found["first"], found["last"]
  return int(first) < int(first[: 4 - len(last)] + last)
