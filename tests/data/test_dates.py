# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/dates.py: a table of cases."""

import pytest

from realm_jax.data.dates import find_dates

_TABLE = {
  # Days.
  "On 4 July 1776 they met.": ["4 July 1776"],
  "It was July 4, 1776, a Thursday.": ["July 4, 1776", "Thursday"],
  "Monday, 5 May 2003": ["Monday, 5 May 2003"],
  "on the fourth of July they": ["fourth of July"],
  "the 3rd of October, 1990": ["3rd of October, 1990"],
  "began on September 1st": ["September 1st"],
  "Jan. 5, 2010 and 9 Sept. 1914": ["Jan. 5, 2010", "9 Sept. 1914"],
  "15 March 44 BC": ["15 March 44 BC"],
  # Months and seasons.
  "In March 1999 it rained": ["March 1999"],
  "in early February 1848": ["early February 1848"],
  "in May we may March on": ["May"],
  "the May fair": [],
  "one October evening": ["October"],
  "the summer of 1969": ["summer of 1969"],
  "winter 1941\u201342": ["winter 1941\u201342"],
  # Years, decades, centuries, eras.
  "born 1950 in Rome": ["1950"],
  "the mid-1990s, the '60s": ["mid-1990s", "'60s"],
  "the 1920s and 1930s": ["1920s and 1930s"],
  "in the late nineties": ["late nineties"],
  "the 19th century BC": ["19th century BC"],
  "eighteenth- and nineteenth-century art": ["nineteenth-century"],
  "the 4th and 5th centuries": ["4th and 5th centuries"],
  "in 44 BC, AD 79 and 1066 AD": ["44 BC", "AD 79", "1066 AD"],
  # Intervals.
  "July 4\u20136, 1776": ["July 4\u20136, 1776"],
  "28 July \u2013 11 November 1918": ["28 July \u2013 11 November 1918"],
  "5 May 1999 \u2013 7 June 2001": ["5 May 1999 \u2013 7 June 2001"],
  "July\u2013August 1914": ["July\u2013August 1914"],
  "the 1914\u201318 war": ["1914\u201318"],
  "from 1914 to 1918": ["1914 to 1918"],
  "264\u2013146 BC": ["264\u2013146 BC"],
  # Figures alone.
  "2001-09-11, 11/9/2001, 31.12.1999": [
    *("2001-09-11", "11/9/2001", "31.12.1999"),
  ],
  # No dates: days that no month has, years that descend.
  "31 June 1900": ["June 1900"],
  "29 February 1900, 29 February 2000": ["February 1900", "29 February 2000"],
  "May 35, 1999": ["1999"],
  "1918\u20131914": ["1918", "1914"],
  "13/13/2001 and 2001-13-01": [],
  # Numbers that count something else.
  "1500 people and 2000 km": [],
  "No. 1984 costs $1999, or 1,999": [],
  "version 2.1999, 1999.5 or 1950%": [],
  "the first of the year": [],
  "Room 12345, 100 years": [],
  "Marching in Mayfair, Augustus": [],
  "": [],
}


@pytest.mark.parametrize("text", _TABLE)
def test_dates_are_found_and_nothing_else(text):
  assert [text[start:end] for start, end in find_dates(text)] == _TABLE[text]


def test_spans_ascend_and_never_overlap():
  text = " and ".join(_TABLE)
  flat = [place for span in find_dates(text) for place in span]
  assert flat == sorted(flat)
