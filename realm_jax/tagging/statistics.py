# SPDX-License-Identifier: Apache-2.0
"""What was found in the texts: counts, by kind and by what is commonest."""

from collections import Counter
from collections.abc import Sequence
import pathlib
from typing import Any

from realm_jax.data.jsonl import parse_object, read_lines

_COMMONEST = 10
# Spans told apart at most, of each kind: what is common comes early on.
_REMEMBERED = 200_000


def gather_statistics(paths: Sequence[pathlib.Path]) -> dict[str, Any]:
  """Returns the statistics of finished parts; memory does not grow with them.

  Keys: "texts", "sentences", "sentences_with_spans", "spans", "span_bytes"
  (the mean), and "labels": for each kind its "spans" and the "commonest"
  strings with their counts (in the first texts, where there are very many).
  """
  counts: Counter[str] = Counter()
  by_label: Counter[str] = Counter()
  strings: dict[str, Counter[str]] = {}
  for path in paths:
    for number, line in read_lines(path):
      found = parse_object(line, f"{path}:{number}")
      _count(found, counts, by_label, strings)
  return {
    "texts": counts["texts"],
    "sentences": counts["sentences"],
    "sentences_with_spans": counts["sentences_with_spans"],
    "spans": by_label.total(),
    "span_bytes": round(counts["bytes"] / max(1, by_label.total()), 2),
    "labels": {
      label: {"spans": by_label[label], "commonest": _commonest(strings[label])}
      for label in sorted(by_label)
    },
  }


def _count(
  found: dict[str, Any],
  counts: Counter[str],
  by_label: Counter[str],
  strings: dict[str, Counter[str]],
) -> None:
  spans, sentences = found["byte_spans"], found["byte_sentences"]
  counts["texts"] += 1
  counts["sentences"] += len(sentences)
  firsts = [start for start, _ in spans]
  counts["sentences_with_spans"] += sum(
    any(start <= first < end for first in firsts) for start, end in sentences
  )
  data = found["text"].encode()
  for (start, end), label in zip(spans, found["labels"], strict=True):
    counts["bytes"] += end - start
    by_label[label] += 1
    known = strings.setdefault(label, Counter())
    text = data[start:end].decode()
    if text in known or len(known) < _REMEMBERED:
      known[text] += 1


def _commonest(strings: Counter[str]) -> list[list[str | int]]:
  ranked = sorted(strings.items(), key=lambda item: (-item[1], item[0]))
  return [list(item) for item in ranked[:_COMMONEST]]
