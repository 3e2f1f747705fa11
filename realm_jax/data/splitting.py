# SPDX-License-Identifier: Apache-2.0
"""Text to sentences, and sentences to passages (REALM: ORQA's blocks)."""

from collections.abc import Iterator, Sequence
import re

from jaxtyping import Int32
import numpy as np

from realm_jax.data.tokenize import Encoding

# A sentence may end here: at a line break, or after a full stop and what
# closes with it, before a capital, a digit or an opening mark.
_BOUNDARY = re.compile(
  r"""
  \s*\n\s*
  | (?<=[.!?…])["'”\u2019)\]]* (\s+) (?=["'“\u2018(\[]*[^\W_a-z])
  """,
  re.VERBOSE,
)
# A full stop that ends no sentence: after an initial, a capital between
# points ("U.S."), or one of these.
_ABBREVIATION = re.compile(
  r"""
  (?<![^\s(\["'“\u2018])
  (?: [A-HJ-Z] | (?:\w\.)+[A-Z] | (?i:
    mr|mrs|ms|dr|prof|st|sr|jr|rev|hon|gen|col|lt|capt|sgt|maj|adm|gov|sen|rep
    |pres|fr|mt|ft|vs|etc|ca|cf|al|e\.g|i\.e|no|nos|vol|pp|fig|figs|ed|eds|est
    |inc|ltd|co|corp|dept|univ|approx
    |jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec
  ))\.$
  """,
  re.VERBOSE,
)
_LONGEST_ABBREVIATION = 12  # Characters, the full stop included.


def split_sentences(text: str) -> list[tuple[int, int]]:
  """Returns the (start, end) characters of each sentence, in order.

  White space at either end of a sentence belongs to none.
  """
  spans = []
  start = 0
  for found in _BOUNDARY.finditer(text):
    end = found.start(1) if found.group(1) else found.start()
    tail = max(start, end - _LONGEST_ABBREVIATION)
    if found.group(1) and _ABBREVIATION.search(text, tail, end):
      continue
    spans.append((start, end))
    start = found.end()
  spans.append((start, len(text)))
  return [span for span in (_stripped(text, *span) for span in spans) if span]


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
  body = text[start:end]
  left = len(body) - len(body.lstrip())
  kept = len(body.strip())
  return (start + left, start + left + kept) if kept else None


def piece_bounds(
  encoding: Encoding, sentences: Sequence[tuple[int, int]]
) -> Int32[np.ndarray, "s1"]:
  """Returns the first piece of each sentence, and the number of pieces."""
  starts = np.array([start for start, _ in sentences], np.int64)
  first = np.searchsorted(encoding.starts, starts, side="left")
  return np.append(first, len(encoding)).astype(np.int32)


def pack_sentences(
  encoding: Encoding,
  bounds: Int32[np.ndarray, "s1"],
  budget: int,
) -> Iterator[Int32[np.ndarray, "k1"]]:
  """Packs whole sentences greedily into passages of at most `budget` pieces.

  A longer sentence is cut, between words where it has a space in reach: it
  is then several sentences, and nothing of the text is lost.

  Args:
    encoding: a document's pieces.
    bounds: of its sentences, as `piece_bounds` returns them.
    budget: pieces a passage may have.

  Yields:
    For each passage the bounds of its sentences, in the document's pieces.
  """
  cuts = _cut_long(encoding, bounds, budget)
  first = 0
  for last in range(1, len(cuts)):
    full = last + 1 == len(cuts) or cuts[last + 1] - cuts[first] > budget
    if full and cuts[last] > cuts[first]:
      yield np.array(cuts[first : last + 1], np.int32)
    if full:
      first = last


def _cut_long(encoding: Encoding, bounds: np.ndarray, budget: int) -> list[int]:
  cuts = [int(bounds[0])]
  for bound in bounds[1:].tolist():
    while bound - cuts[-1] > budget:
      limit = cuts[-1] + budget
      after_space = np.flatnonzero(
        encoding.starts[cuts[-1] + 1 : limit + 1]
        > encoding.ends[cuts[-1] : limit]
      )
      step = int(after_space[-1]) + 1 if after_space.size else budget
      cuts.append(cuts[-1] + step)
    if bound > cuts[-1]:  # A sentence may have no piece at all.
      cuts.append(bound)
  return cuts
