# SPDX-License-Identifier: Apache-2.0
"""`realm tag-spans`: texts to texts with their salient spans, part by part.

  TAGGING.json         what was asked for; written first
  part-000000.jsonl    the first texts, one a line; each part appears whole
  STATISTICS.json      written last: with it the folder is finished

Each part depends on its own texts alone, so any number of processes may make
them, in any order, and whichever is killed is started again.
"""

from collections.abc import Iterable, Iterator, Sequence
import itertools
import json
import pathlib
from typing import Any

from realm_jax import files
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.dates import find_dates
from realm_jax.data.entities import LabeledSpan, merge_spans
from realm_jax.data.records import Document
from realm_jax.data.sources import read_documents
from realm_jax.data.splitting import split_sentences
from realm_jax.data.tagged import (
  FORMAT,
  SETTINGS,
  STATISTICS,
  part_name,
  tagged_line,
)
from realm_jax.tagging.statistics import gather_statistics
from realm_jax.tagging.taggers import SentenceTagger

DATE = "DATE"
_ROWS_AT_ONCE = 1024


def tag_spans(
  texts: Iterable[Document],
  tagger: SentenceTagger,
  output: str,
  *,
  facts: dict[str, Any],
  part_texts: int,
  process_id: int = 0,
  num_processes: int = 1,
) -> dict[str, Any] | None:
  """Tags texts, but for the parts that are there; returns the statistics.

  A text without a sentence that has a span is left out.

  Args:
    texts: the same ones in the same order in every process; of each, the uid
      is written as its source.
    tagger: finds what has a name; dates are found beside.
    output: a folder; what another process or an earlier call has put there is
      used.
    facts: of the texts, such as where they come from.
    part_texts: that a part is made of.
    process_id: this process makes each part whose number has this remainder.
    num_processes: by which it is divided.

  Returns:
    The statistics, or None while parts of other processes are missing.

  Raises:
    ValueError: `output` was begun with other settings.
    OSError: it cannot be written.
  """
  folder = pathlib.Path(output)
  asked = {"format": FORMAT, "tagger": tagger.fingerprint, **facts}
  files.claim(folder / SETTINGS, {**asked, "part_texts": part_texts})
  stream = iter(texts)
  num_parts = num_texts = 0
  for number in itertools.count():
    part = list(itertools.islice(stream, part_texts))
    if not part:
      break
    num_parts, num_texts = number + 1, num_texts + len(part)
    path = folder / part_name(number)
    if number % num_processes == process_id and not path.exists():
      lines = _tagged(part, tagger)
      files.write_whole(path, "".join(line + "\n" for line in lines))
  paths = [folder / part_name(number) for number in range(num_parts)]
  if not all(path.exists() for path in paths):
    return None
  found = {"texts_read": num_texts, **gather_statistics(paths)}
  files.write_whole(folder / STATISTICS, json.dumps(found, indent=2))
  return found


def read_texts(source: str, corpus: str) -> Iterator[Document]:
  """Yields what is to be tagged: the passages of a corpus, or documents.

  Args:
    source: as `read_documents` takes it; or "".
    corpus: directory of a corpus, if there is no `source`.

  Raises:
    ValueError, OSError: as `read_documents` and `PassageCorpus` raise them.
  """
  if source:
    yield from read_documents(source)
    return
  opened = PassageCorpus.open(corpus)
  for first in range(0, len(opened), _ROWS_AT_ONCE):
    rows = range(first, min(first + _ROWS_AT_ONCE, len(opened)))
    for passage in opened.passages(rows):
      yield Document(title=passage.title, text=passage.text, uid=passage.uid)


def _tagged(part: Sequence[Document], tagger: SentenceTagger) -> Iterator[str]:
  """Yields a line for each text that has a span."""
  bounds = [split_sentences(text.text) for text in part]
  sentences = [
    text.text[start:end]
    for text, pairs in zip(part, bounds, strict=True)
    for start, end in pairs
  ]
  found = iter(zip(sentences, tagger.tag(sentences), strict=True))
  for text, pairs in zip(part, bounds, strict=True):
    spans = [
      LabeledSpan(start + span.start, start + span.end, span.label)
      for (start, _), (sentence, names) in zip(pairs, found, strict=False)
      for span in merge_spans(names, _dates(sentence))
    ]
    if spans:
      yield tagged_line(text, spans, pairs)


def _dates(sentence: str) -> list[LabeledSpan]:
  return [LabeledSpan(start, end, DATE) for start, end in find_dates(sentence)]
