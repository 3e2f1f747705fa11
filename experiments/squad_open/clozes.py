# SPDX-License-Identifier: Apache-2.0
"""Sentences that have lost words and a salient span: clozes, to pre-train on.

REALM leaves out the passage that a text was taken from, which would give the
span away, and reads in others that tell the same. In a corpus as small as this
most is told once: what had been masked and was then found elsewhere taught the
retriever to find an article's other passages, and no more questions' own.

So here the own passage may be found, and is not found by its wording alone:
half of a sentence's words are missing, as in the noisy clozes of Lewis et al.
(2019). What is left has a question's length. Of a sentence's spans that one is
asked which the fewest passages hold, for any that holds it would do. No
question is looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
import random
from typing import Any

from realm_jax import files
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Passage
from realm_jax.data.salient_spans import RuleTagger
from realm_jax.data.splitting import split_sentences

FILE = "clozes.jsonl"
_KEPT = 0.5  # Of the words around a span.
_SHORTEST = 3  # Characters: a shorter string may stand for anything.

Span = tuple[int, int]


def write(corpus: PassageCorpus, directory: pathlib.Path) -> None:
  """Writes a cloze of each sentence that has one, as `realm` reads texts."""
  rng, tagger = random.Random(0), RuleTagger()
  passages = list(corpus.passages(range(len(corpus))))
  spans = [_spans(passage, tagger) for passage in passages]
  holding = Counter(
    text
    for passage, found in zip(passages, spans, strict=True)
    for text in {passage.text[start:end] for start, end in found}
  )
  lines = [
    json.dumps(cloze, ensure_ascii=False) + "\n"
    for passage, found in zip(passages, spans, strict=True)
    for cloze in clozes(passage, found, holding, rng)
  ]
  directory.mkdir(exist_ok=True)
  files.write_whole(directory / FILE, "".join(lines))


def _spans(passage: Passage, tagger: RuleTagger) -> list[Span]:
  """Returns what may be asked; what the title says would be had at once."""
  return [
    (start, end)
    for start, end in tagger.tag(passage.text)
    if end - start >= _SHORTEST and passage.text[start:end] not in passage.title
  ]


def clozes(
  passage: Passage,
  spans: Sequence[Span],
  holding: Mapping[str, int],
  rng: random.Random,
) -> Iterator[dict[str, Any]]:
  """Yields {"text", "spans", "source_uid"} of a passage's sentences.

  Args:
    passage: with the sentences.
    spans: that may be asked.
    holding: how many passages hold a span's text.
    rng: which words stay, and which of several spans is asked.
  """
  for first, last in split_sentences(passage.text):
    within = [
      (start, end) for start, end in spans if first <= start and end <= last
    ]
    if within:
      rng.shuffle(within)
      start, end = min(
        within, key=lambda span: holding[passage.text[span[0] : span[1]]]
      )
      text, span = thinned(
        passage.text[first:last], (start - first, end - first), rng
      )
      yield {"text": text, "spans": [span], "source_uid": passage.uid}


def thinned(text: str, span: Span, rng: random.Random) -> tuple[str, Span]:
  """Returns a text with half of its words outside a span, and the span there.

  Args:
    text: of words between white space.
    span: its characters, which stay.
    rng: decides which words stay.
  """
  start, end = span

  def some(part: str) -> list[str]:
    return [word for word in part.split() if rng.random() < _KEPT]

  before = "".join(f"{word} " for word in some(text[:start]))
  after = "".join(f" {word}" for word in some(text[end:]))
  whole = before + text[start:end] + after
  return whole, (len(before), len(before) + end - start)
