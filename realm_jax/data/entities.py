# SPDX-License-Identifier: Apache-2.0
"""Labels of words to named entities, by the rules that CoNLL-2003 scores by."""

from collections.abc import Iterable, Sequence
import itertools
from typing import NamedTuple

OUTSIDE = "O"


class LabeledSpan(NamedTuple):
  """A salient span: characters of a text, and what kind of thing it names."""

  start: int
  end: int
  label: str


def decode_labels(labels: Sequence[str]) -> list[LabeledSpan]:
  """Returns the entities that a sentence's labels spell, by word numbers.

  Args:
    labels: one a word: "O", "B-PER" (begins), "I-PER" (goes on); also of
      BIOES and BILOU: "E-", "L-" (ends), "S-", "U-" (alone). As CoNLL's
      scorer has it, "I-" begins an entity after another kind or none, so
      IOB1 is read as well as IOB2. A label without a prefix is as with "I-".

  Returns:
    Entities from word `start` up to, and without, word `end`.
  """
  found: list[LabeledSpan] = []
  start, previous_prefix, previous_kind = 0, OUTSIDE, ""
  for place, label in enumerate([*labels, OUTSIDE]):
    prefix, kind = _split(label)
    goes_on = (
      kind == previous_kind
      and prefix not in ("B", "S", "U")
      and previous_prefix not in ("E", "L", "S", "U")
    )
    if previous_kind and not goes_on:
      found.append(LabeledSpan(start, place, previous_kind))
    if not goes_on:
      start = place
    previous_prefix, previous_kind = prefix, kind
  return found


def _split(label: str) -> tuple[str, str]:
  if label == OUTSIDE:
    return OUTSIDE, ""
  prefix, dash, kind = label.partition("-")
  return (prefix, kind) if dash and len(prefix) == 1 else ("I", label)


def merge_spans(*kinds: Iterable[LabeledSpan]) -> list[LabeledSpan]:
  """Returns spans in order without overlaps.

  Of spans that overlap, the longest stays, and of equally long ones the first
  (by place, then by argument).
  """
  every = sorted(
    itertools.chain(*kinds),
    key=lambda span: (span.start - span.end, span.start),
  )
  kept: list[LabeledSpan] = []
  for span in every:
    if all(span.end <= k.start or k.end <= span.start for k in kept):
      kept.append(span)
  return sorted(kept)
