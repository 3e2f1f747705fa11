# SPDX-License-Identifier: Apache-2.0
"""Masked fragments of passages, to warm the retriever and the encoder up on.

Sentences about facts name a country, say which of its figures they mean and
have words in between that no passage has. Plain stretches of the factbook do
none of it, and what a tiny model learns from them is of little use. So a
fragment is a few words around a value, mostly with the passage's title among
them, often with the field's name, and with some words of other passages.
"""

from collections.abc import Collection, Iterator, Sequence
import random
from typing import Any

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Passage
from realm_jax.data.salient_spans import RuleTagger

FRAGMENTS_PER_PASSAGE = 4
_TITLE_RATE = 0.9
_FIELD_RATE = 0.5
_SALIENT_RATE = 0.7  # Else a few words anywhere: values may be plain words.
_LONGEST_PLAIN = 4  # Words.
_WORDS_BEFORE = (1, 4)  # At least and at most.
_WORDS_AFTER = (0, 3)
_STRANGE_WORDS = (0, 5)
_DROP_RATES = (0.0, 0.0, 0.15, 0.3)  # One of them for a fragment.

_TAGGER = RuleTagger()


def fragments(
  corpus: PassageCorpus, held_out: Collection[str], seed: int
) -> Iterator[dict[str, Any]]:
  """Yields lines {"text", "spans", "source_uid"} for training.

  Args:
    corpus: of the factbook; the texts start with the name of their field.
    held_out: uids of passages to leave out: what they say is not to be known.
    seed: of the draws.
  """
  rng = random.Random(seed)
  passages = corpus.passages(range(len(corpus)))
  vocabulary = [
    word
    for passage in passages
    for word in passage.text.lower().split()
    if word.isalpha()
  ]
  fields = {
    passage.uid: passage.text.partition(".")[0].partition(":")[0]
    for passage in passages
  }
  for passage in passages:
    if passage.uid not in held_out:
      field = fields[passage.uid.partition("#")[0]]
      for _ in range(FRAGMENTS_PER_PASSAGE):
        yield _fragment(passage, field, vocabulary, rng)


def _fragment(
  passage: Passage, field: str, vocabulary: Sequence[str], rng: random.Random
) -> dict[str, Any]:
  start, end = _draw_value(passage.text, rng)
  drop_rate = rng.choice(_DROP_RATES)

  def keep_some(words: list[str]) -> list[str]:
    return [word for word in words if rng.random() >= drop_rate]

  before = keep_some(
    passage.text[:start].split()[-rng.randint(*_WORDS_BEFORE) :]
  )
  after = keep_some(passage.text[end:].split()[: rng.randint(*_WORDS_AFTER)])
  if rng.random() < _FIELD_RATE:
    before[:0] = keep_some(field.split())
  strange = rng.choices(vocabulary, k=rng.randint(*_STRANGE_WORDS))
  titles = [passage.title] if rng.random() < _TITLE_RATE else []
  for words in strange + titles:
    side = rng.choice([before, after])
    side.insert(rng.randint(0, len(side)), words)
  head = "".join(f"{word} " for word in before)
  value = passage.text[start:end]
  return {
    "text": " ".join([head + value, *after]),
    "spans": [[len(head), len(head) + len(value)]],
    "source_uid": passage.uid,
  }


def _draw_value(text: str, rng: random.Random) -> tuple[int, int]:
  """Returns the characters of what is to be masked."""
  spans = _TAGGER.tag(text)
  if spans and rng.random() < _SALIENT_RATE:
    return rng.choice(spans)
  lines = [0] + [at + 1 for at, char in enumerate(text) if char == "\n"]
  line = rng.choice(lines)
  words = text[line:].partition("\n")[0].split(" ")
  first = rng.randrange(len(words))
  value = " ".join(words[first : first + rng.randint(1, _LONGEST_PLAIN)])
  start = line + len(" ".join([*words[:first], ""]))
  return start, start + len(value.rstrip(".,;:") or value)
