# SPDX-License-Identifier: Apache-2.0
"""Texts with their salient spans, as `realm tag-spans` writes them.

Offsets count bytes of the text in UTF-8, as the published records do.
"""

from collections.abc import Sequence
import json
from typing import Any

from jaxtyping import Int
import numpy as np

from realm_jax.data.entities import LabeledSpan
from realm_jax.data.records import Document

FORMAT = 1
SETTINGS = "TAGGING.json"
STATISTICS = "STATISTICS.json"
PARTS = "part-*.jsonl"


def part_name(number: int) -> str:
  """Returns the file name of a part; names sort as numbers do."""
  return f"part-{number:06d}.jsonl"


def tagged_line(
  text: Document,
  spans: Sequence[LabeledSpan],
  sentences: Sequence[tuple[int, int]],
) -> str:
  """Returns a line of JSON.

  {"text", "source_uid", "byte_spans": [[start, limit], ..], "labels": [..],
  "byte_sentences": [[start, limit], ..]}

  Args:
    text: whose uid is its source's, or "".
    spans: in characters.
    sentences: (start, end) in characters.
  """
  to_byte = _byte_of_character(text.text)
  line: dict[str, Any] = {"text": text.text}
  if text.uid:
    line["source_uid"] = text.uid
  line["byte_spans"] = [to_byte[[s.start, s.end]].tolist() for s in spans]
  line["labels"] = [span.label for span in spans]
  line["byte_sentences"] = [to_byte[list(pair)].tolist() for pair in sentences]
  return json.dumps(line, ensure_ascii=False)


def _byte_of_character(text: str) -> Int[np.ndarray, "n1"]:
  """Returns the byte at which each character starts, and all bytes' count."""
  data = np.frombuffer(text.encode(), np.uint8)
  return np.append(np.flatnonzero(_starts(data)), len(data))


def characters_of_bytes(
  text: str, pairs: Any, what: str, where: str
) -> list[tuple[int, int]]:
  """Returns (start, end) pairs of bytes as pairs of characters.

  Raises:
    ValueError: not a list of pairs, or a byte that no character starts at;
      begins with `where` and names `what`.
  """
  data = np.frombuffer(text.encode(), np.uint8)
  starts = np.append(_starts(data), True)
  character = np.cumsum(starts) - 1
  try:
    bytes_ = [(int(start), int(end)) for start, end in pairs]
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{where}: '{what}' must be a list of [start, limit], got {pairs!r}."
    ) from error
  for start, end in bytes_:
    if not 0 <= start <= end <= len(data) or not starts[[start, end]].all():
      raise ValueError(
        f"{where}: '{what}' has [{start}, {end}], which is no stretch of whole "
        f"characters of the text's {len(data)} bytes."
      )
  return [(int(character[start]), int(character[end])) for start, end in bytes_]


def _starts(data: np.ndarray) -> np.ndarray:
  # A byte 10xxxxxx goes on with a character.
  return (data & 0xC0) != 0x80
