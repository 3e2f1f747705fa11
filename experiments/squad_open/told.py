# SPDX-License-Identifier: Apache-2.0
"""Sentences with a span that another passage of the same article holds, too.

In a corpus as small as this most salient spans stand in one passage alone,
which REALM leaves out as the text's own: no look-up can help to fill them in,
and a short training is spent on noise. What is told twice is masked instead, as
far as the texts themselves say so: no question is looked at.
"""

import collections
from collections.abc import Iterator
import json
import pathlib
import random
from typing import Any, NamedTuple

from realm_jax import files
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Passage
from realm_jax.data.salient_spans import RuleTagger
from realm_jax.data.splitting import split_sentences

PRETRAINING = "told.jsonl"  # Beside what is found: the own passage is left out.
# Beside a passage that tells, and beside the own one, to learn to copy from.
READING = "told_beside.jsonl"
_SHORTEST = 3  # Characters: a shorter string may stand for anything.
_HOLDERS = 12  # Passages at most: what stands everywhere tells little.

Span = tuple[int, int]


class Told(NamedTuple):
  """A sentence, and of each of its spans the other passages that hold it."""

  text: str
  uid: str  # Of its passage.
  holders: dict[Span, list[str]]  # Uids, one or more.


def told_sentences(corpus: PassageCorpus) -> Iterator[Told]:
  """Yields what the corpus tells twice, passage by passage."""
  tagger = RuleTagger()
  passages = corpus.passages(range(len(corpus)))
  tagged = [tagger.tag(passage.text) for passage in passages]
  holders: dict[str, list[Passage]] = collections.defaultdict(list)
  for passage, spans in zip(passages, tagged, strict=True):
    for name in {passage.text[start:end] for start, end in spans}:
      holders[name].append(passage)

  def others(passage: Passage, name: str) -> list[str]:
    same = [
      other.uid
      for other in holders[name]
      if other.title == passage.title and other.uid != passage.uid
    ]
    rare = len(name) >= _SHORTEST and len(holders[name]) <= _HOLDERS
    return same if rare and name not in passage.title else []

  for passage, spans in zip(passages, tagged, strict=True):
    for first, last in split_sentences(passage.text):
      found = {
        (start - first, end - first): others(passage, passage.text[start:end])
        for start, end in spans
        if first <= start and end <= last
      }
      found = {span: uids for span, uids in found.items() if uids}
      if found:
        yield Told(passage.text[first:last], passage.uid, found)


def write(corpus: PassageCorpus, directory: pathlib.Path) -> None:
  """Writes both files, as `realm` reads texts."""
  rng = random.Random(0)
  told = list(told_sentences(corpus))
  own = [
    {"text": one.text, "spans": [*one.holders], "source_uid": one.uid}
    for one in told
  ]
  beside = [
    {"text": one.text, "spans": [span], "source_uid": rng.choice(uids)}
    for one in told
    for span, uids in one.holders.items()
  ]
  directory.mkdir(exist_ok=True)
  _write(directory / READING, own + beside)
  _write(directory / PRETRAINING, own)


def _write(path: pathlib.Path, lines: list[dict[str, Any]]) -> None:
  text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
  files.write_whole(path, text)
