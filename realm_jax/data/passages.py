# SPDX-License-Identifier: Apache-2.0
"""Documents to passages: tokenised, cut, named, and put into a corpus."""

from collections.abc import Iterable, Iterator
import hashlib
import itertools
import json
from typing import NamedTuple

from realm_jax.data.corpus_writer import (
  CorpusWriter,
  PassageFormat,
  StoredPassage,
)
from realm_jax.data.records import Document, Passage
from realm_jax.data.splitting import (
  pack_sentences,
  piece_bounds,
  split_sentences,
)
from realm_jax.data.tokenize import Encoding, Tokenizer

_NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]
_DOCUMENTS_AT_ONCE = 256


class EncodedDocument(NamedTuple):
  """A document and its word pieces."""

  document: Document
  title: Encoding
  text: Encoding


def encode_documents(
  documents: Iterable[Document], tokenizer: Tokenizer
) -> Iterator[list[EncodedDocument]]:
  """Yields the documents in their order, batch by batch on all cores."""
  stream = iter(documents)
  while batch := list(itertools.islice(stream, _DOCUMENTS_AT_ONCE)):
    titles = tokenizer.encode_batch([document.title for document in batch])
    texts = tokenizer.encode_batch([document.text for document in batch])
    yield list(map(EncodedDocument, batch, titles, texts))


class CutPassage(NamedTuple):
  """A passage of a document, before it is known to be the only one."""

  stored: StoredPassage
  is_named: bool  # By the document's uid; otherwise by its content.
  origin: str  # Of the document, for error messages.


def cut_document(
  encoded: EncodedDocument, passage_format: PassageFormat
) -> Iterator[CutPassage]:
  """Yields a document's passages, of whole sentences (ORQA's blocks)."""
  document, title, text = encoded
  room = passage_format.max_pieces - _NUM_SPECIALS
  title_ids = title.ids[: room // 2]
  bounds = piece_bounds(text, split_sentences(document.text))
  packed = pack_sentences(text, bounds, room - len(title_ids))
  for part, cuts in enumerate(packed):
    first, stop = cuts[0], cuts[-1]
    characters = document.text[text.starts[first] : text.ends[stop - 1]]
    uid = _passage_uid(document, part, characters)
    stored = passage_format.store(
      Passage(uid=uid, title=document.title, text=characters),
      title_ids,
      text.ids[first:stop],
      cuts[:-1] - first,
      # Without a uid, passages are not numbered: each is on its own.
      starts_document=part == 0 or not document.uid,
    )
    yield CutPassage(
      stored, bool(document.uid), document.origin or document.title
    )


def add_document(writer: CorpusWriter, encoded: EncodedDocument) -> int:
  """Adds a document's passages; returns how many were there already.

  Raises:
    ValueError: a passage's uid occurs twice; names the document's origin.
    OSError: the disk refuses.
  """
  return add_passages(writer, cut_document(encoded, writer.format))


def add_passages(writer: CorpusWriter, passages: Iterable[CutPassage]) -> int:
  """Does `add_document`'s work on passages that are cut already."""
  num_repeated = 0
  for stored, is_named, origin in passages:
    if not writer.has(stored.uid_hash):
      writer.append(stored)
    elif is_named:
      uid = json.loads(stored.record)["uid"]
      raise ValueError(
        f"{origin}: the uid {uid!r} occurs twice, and passages are told apart "
        "by it. Make it unique, or leave it out."
      )
    else:
      num_repeated += 1
  return num_repeated


def _passage_uid(document: Document, part: int, characters: str) -> str:
  if document.uid:
    return f"{document.uid}#{part}" if part else document.uid
  return content_uid(document.title, characters)


def content_uid(title: str, text: str) -> str:
  """Returns the uid of a passage whose document has none."""
  return hashlib.sha1(f"{title}\n{text}".encode()).hexdigest()
