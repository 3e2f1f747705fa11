# SPDX-License-Identifier: Apache-2.0
"""Masked texts as examples: what REALM's pre-training asks about."""

import dataclasses
import itertools
from typing import Any

import grain
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate, masking
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold import named_rows
from realm_jax.data.jsonl import (
  check_first,
  optional_text,
  text_field,
)
from realm_jax.data.records import MaskedText
from realm_jax.data.salient_spans import RuleTagger, Tagger
from realm_jax.data.splitting import piece_bounds, split_sentences
from realm_jax.data.tagged import characters_of_bytes
from realm_jax.data.texts import open_texts
from realm_jax.data.tokenize import Encoding, Tokenizer

Example = dict[str, Any]
# Spans drawn of a text before one outside the query's length is put up with.
_TRIES = 16


class MaskedTexts:
  """Texts, tagged where they come without spans.

  An object is {"text", "spans"?: [[start, end], ..] in characters, or
  "byte_spans"? in bytes of UTF-8, "byte_sentences"?, "source_uid"?,
  "passage_uid"?}. Where there are sentences, one of them is what is asked
  about: the one that the masked span lies in.
  """

  def __init__(self, path: str, tagger: Tagger | None = None) -> None:
    """Reads the first texts, to fail early.

    Args:
      path: as `open_texts` takes it.
      tagger: for texts without spans.

    Raises:
      OSError: they cannot be opened.
      ValueError: there is none or one is bad; names file and line.
    """
    self._texts = open_texts(path)
    self._tagger = tagger or RuleTagger()
    check_first(self)

  def __len__(self) -> int:
    return len(self._texts)

  def where(self, index: int) -> str:
    """Returns where a text stands: "path:line", say."""
    return self._texts.where(index)

  def __getitem__(self, index: int) -> MaskedText:
    found, where = self._texts[index], self.where(index)
    text = text_field(found, "text", where)
    spans = found.get("spans")
    if spans is None and "byte_spans" in found:
      spans = _from_bytes(found, "byte_spans", where)
    if spans is None:
      spans = self._tagger.tag(text)
    sentences = _from_bytes(found, "byte_sentences", where)
    return MaskedText(
      text=text,
      spans=_to_spans(spans, len(text), where),
      sentences=tuple(sentences or ()),
      source_uid=optional_text(found, "source_uid", where),
      passage_uid=optional_text(found, "passage_uid", where),
    )


def _from_bytes(
  found: dict[str, Any], name: str, where: str
) -> list[tuple[int, int]] | None:
  if name not in found:
    return None
  return characters_of_bytes(found["text"], found[name], name, where)


def sentence_of(text: MaskedText, span: tuple[int, int]) -> MaskedText | None:
  """Returns the sentence that a span lies in, with it as its only span.

  That is the whole text where it names no sentences, and None where the span
  lies in none.
  """
  for start, end in text.sentences or ((0, len(text.text)),):
    if start <= span[0] and span[1] <= end:
      return dataclasses.replace(
        text,
        text=text.text[start:end],
        spans=((span[0] - start, span[1] - start),),
        sentences=(),
      )
  return None


def _to_spans(
  spans: Any, num_characters: int, where: str
) -> tuple[tuple[int, int], ...]:
  try:
    pairs = tuple((int(start), int(end)) for start, end in spans)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{where}: 'spans' must be a list of [start, end], got {spans!r}."
    ) from error
  for start, end in pairs:
    if not 0 <= start < end <= num_characters:
      raise ValueError(
        f"{where}: the span [{start}, {end}] is not inside the text, which "
        f"has {num_characters} characters."
      )
  return pairs


def masked_queries(
  run: RunConfig,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  path: str,
  *,
  train: bool,
) -> grain.MapDataset:
  """Returns examples of masked text; index alone decides what each is.

  An example is {"query": row [Q], "positions": i32[M] in the query row,
  "targets": i32[M], "target_mask": bool[M], "source_row": the passage to
  exclude, "gold_row": the passage to find}; a row is i32, -1 for none.

  Args:
    run: lengths, masking and seed.
    tokenizer: the corpus' own.
    corpus: whose rows are meant.
    path: texts as `MaskedTexts` reads them, of this corpus or any others; or
      "" for the sentences of the corpus, one of each passage at a time.
    train: shuffled anew in every epoch, without end; or once in order.

  Raises:
    OSError: `path` cannot be opened.
    ValueError: it is empty or a line is bad, or the tokenizer is not the
      corpus' own.
  """
  corpus.check_tokenizer(tokenizer)
  source = (
    _FileQueries(run, tokenizer, corpus, path)
    if path
    else _SentenceQueries(run, tokenizer, corpus)
  )
  dataset = grain.MapDataset.range(len(source)).seed(run.seed)
  if train:
    dataset = dataset.shuffle().repeat()
  return dataset.random_map(source.example)


class _Queries:
  """Masks a stretch of text and lays it out as a query."""

  def __init__(
    self, run: RunConfig, tokenizer: Tokenizer, corpus: PassageCorpus
  ) -> None:
    self._lengths, self._scheme = run.lengths, run.data.masking
    self._tokenizer, self._corpus = tokenizer, corpus
    self._longest = run.lengths.query - 2  # [CLS] and [SEP].

  def _masked(
    self,
    encoding: Encoding,
    spans: list[tuple[int, int]],
    rng: np.random.Generator,
  ) -> Example:
    num_predicted = self._lengths.masks
    chosen = masking.choose_pieces(
      self._scheme, encoding, spans, num_predicted, rng
    )
    masked = masking.mask_pieces(
      encoding.ids, chosen, self._tokenizer.mask_id, num_predicted
    )
    return {
      "query": collate.query_row(
        masked.ids, self._tokenizer, self._lengths.query
      ),
      # One further on: [CLS] comes first.
      "positions": masked.positions + masked.target_mask.astype(np.int32),
      "targets": masked.targets,
      "target_mask": masked.target_mask,
    }


class _FileQueries(_Queries):
  def __init__(
    self,
    run: RunConfig,
    tokenizer: Tokenizer,
    corpus: PassageCorpus,
    path: str,
  ) -> None:
    super().__init__(run, tokenizer, corpus)
    self._texts = MaskedTexts(path)

  def __len__(self) -> int:
    return len(self._texts)

  def example(self, index: int, rng: np.random.Generator) -> Example:
    text = self._texts[index]
    if text.sentences:
      text = self._choose(text, rng)
    encoding = self._tokenizer.encode(text.text)[: self._longest]
    if len(encoding) == 0:
      raise ValueError(f"{self._texts.where(index)}: 'text' has no word piece.")
    return {
      **self._masked(encoding, list(text.spans), rng),
      "source_row": self._row_of(text.source_uid),
      "gold_row": self._gold_row(text.passage_uid, index),
    }

  def _choose(self, text: MaskedText, rng: np.random.Generator) -> MaskedText:
    """Draws a span that fits the query with its sentence, and takes that."""
    for place in rng.permutation(len(text.spans))[:_TRIES]:
      sentence = sentence_of(text, text.spans[place])
      if sentence is not None:
        encoding = self._tokenizer.encode(sentence.text)[: self._longest]
        if masking.pieces_of(encoding, sentence.spans[0]).size:
          return sentence
    return dataclasses.replace(text, spans=(), sentences=())

  def _row_of(self, uid: str) -> np.int32:
    # Text from elsewhere may name a source that this corpus does not have.
    row = self._corpus.row_of(uid) if uid else None
    return np.int32(collate.NULL_ROW if row is None else row)

  def _gold_row(self, uid: str, index: int) -> np.int32:
    named = named_rows(uid, self._corpus, self._texts.where(index))
    return np.int32([*named[:1], collate.NULL_ROW][0])


class _SentenceQueries(_Queries):
  _tagger = RuleTagger()

  def __len__(self) -> int:
    return len(self._corpus)

  def example(self, row: int, rng: np.random.Generator) -> Example:
    text = self._corpus.passage(row).text
    encoding = self._tokenizer.encode(text)
    sentence, spans = self._choose(text, encoding, rng)
    return {
      **self._masked(sentence, spans, rng),
      "source_row": np.int32(row),
      "gold_row": np.int32(collate.NULL_ROW),
    }

  def _choose(
    self, text: str, encoding: Encoding, rng: np.random.Generator
  ) -> tuple[Encoding, list[tuple[int, int]]]:
    """Draws a sentence and, if salient spans are wanted, one of it.

    Each span of the passage is as likely as the others, so a sentence is
    drawn the more often the more it tells.
    """
    bounds = piece_bounds(encoding, split_sentences(text))
    sentences = [
      encoding[start : min(stop, start + self._longest)]
      for start, stop in itertools.pairwise(bounds)
      if stop > start
    ]
    if self._scheme == "salient":
      spans = self._tagger.tag(text)
      inside = [
        (sentence, [span])
        for sentence in sentences
        for span in spans
        if masking.pieces_of(sentence, span).size
      ]
      if inside:
        return inside[rng.integers(len(inside))]
    return sentences[rng.integers(len(sentences))], []
