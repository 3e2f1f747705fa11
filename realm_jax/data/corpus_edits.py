# SPDX-License-Identifier: Apache-2.0
"""Edits to a corpus: a new one, and which passages the two have in common.

A corpus is final, so edits make another. They name documents: the passages
`u`, `u#1`, `u#2`, ... were cut from the document `u` and come and go with it.
In a corpus whose source had no uids every passage is a document of its own,
whose uid is the digest that it was given.

The documents that no edit names keep their order and are copied as they
stand; a replaced document stays in its place; what is added comes last. So
the new corpus is the one that the edited documents would make if they were
prepared in that order, and undoing replacements gives back the fingerprint.
"""

import dataclasses
import itertools
import os
from typing import Any

from jaxtyping import Int64, UInt64
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_writer import CorpusWriter, uid_hash
from realm_jax.data.jsonl import JsonLines
from realm_jax.data.passages import (
  EncodedDocument,
  add_document,
  encode_documents,
)
from realm_jax.data.records import Document
from realm_jax.data.sources import to_document
from realm_jax.data.tokenize import load_tokenizer

_HASHES_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edits:
  """A file of edits, checked against the corpus that they are for.

  Attributes:
    lines: the file's objects; numbers are places among them.
    added: numbers of the documents to add, in their order.
    replaced: first row of a document, to the number of its successor.
    removed: first rows of documents.
  """

  lines: JsonLines
  added: list[int]
  replaced: dict[int, int]
  removed: set[int]


def read_edits(corpus: PassageCorpus, path: str | os.PathLike[str]) -> Edits:
  """Reads a JSONL file of edits, plain or .gz.

  A line is {"uid", "title"?, "text"}, which adds a document, or replaces the
  one of this uid; or {"uid", "remove": true}.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is empty; a line is neither kind, or has the uid of an
      earlier line, or names a passage within a document, or removes what the
      corpus does not have. Names file and line.
  """
  edits = Edits(lines=JsonLines(path), added=[], replaced={}, removed=set())
  numbers: dict[int, int] = {}  # By hashed uid: there may be millions.
  for number in range(len(edits.lines)):
    where = edits.lines.where(number)
    uid, removes = _parse(edits.lines[number], where)
    earlier = numbers.setdefault(uid_hash(uid), number)
    if earlier != number:
      raise ValueError(
        f"{where}: the uid {uid!r} is edited at {edits.lines.where(earlier)} "
        "already: keep one of the two lines."
      )
    row = _first_row(corpus, uid, where)
    if row is None and removes:
      raise ValueError(
        f"{where}: cannot remove {uid!r}: {corpus.directory} has no document "
        "of this uid."
      )
    if row is None:
      edits.added.append(number)
    elif removes:
      edits.removed.add(row)
    else:
      edits.replaced[row] = number
  return edits


def _parse(found: dict[str, Any], where: str) -> tuple[str, bool]:
  """Returns the uid that is edited, and whether it is removed."""
  removes = "remove" in found
  if removes and (found["remove"] is not True or "text" in found):
    raise ValueError(
      f"{where}: an edit has either 'text' or 'remove': true, got 'remove': "
      f"{found['remove']!r} in an object with {sorted(found)}."
    )
  document = to_document({"text": "", **found}, where)
  if not document.uid:
    raise ValueError(
      f"{where}: an edit needs the 'uid' of a document; the object has "
      f"{sorted(found)}."
    )
  if not removes and not document.text.strip():
    raise ValueError(
      f"{where}: {document.uid!r} has no text; to remove the document, write "
      "'remove': true instead."
    )
  return document.uid, removes


def _first_row(corpus: PassageCorpus, uid: str, where: str) -> int | None:
  """Returns the first row of the document, or None."""
  row = corpus.row_of(uid)
  if row is None:
    return None
  first = corpus.document_rows(row).start
  if first != row:
    raise ValueError(
      f"{where}: {uid!r} is a passage within the document "
      f"{corpus.passage(first).uid!r}, and edits name documents."
    )
  return row


def apply_edits(
  corpus: PassageCorpus, edits: Edits, directory: str | os.PathLike[str]
) -> PassageCorpus:
  """Writes the edited corpus; returns it, opened.

  One pass; memory grows by about 200 bytes a passage and an edit.

  Args:
    corpus: stays as it is.
    edits: as `read_edits` returned them for this corpus.
    directory: must not exist yet; it appears when it is complete.

  Raises:
    FileExistsError: `directory` is there.
    ValueError: no passage would be left, a document's text has no word piece,
      or two documents would own a passage of the same uid.
    OSError: the files cannot be written. In no case is anything left behind.
  """
  tokenizer = load_tokenizer(corpus.folder)
  corpus.check_tokenizer(tokenizer)
  in_place = sorted(edits.replaced)
  numbers = [*(edits.replaced[row] for row in in_place), *edits.added]
  documents = (_document(edits.lines, number) for number in numbers)
  batches = encode_documents(documents, tokenizer)
  encoded = itertools.chain.from_iterable(batches)
  with CorpusWriter(directory, tokenizer, corpus.max_pieces) as writer:
    end = 0
    for row in sorted([*in_place, *edits.removed]):
      _copy(writer, corpus, range(end, row))
      if row in edits.replaced:
        _add(writer, next(encoded))
      end = corpus.document_rows(row).stop
    _copy(writer, corpus, range(end, len(corpus)))
    for added in encoded:
      _add(writer, added)
    if writer.num_passages == 0:
      raise ValueError(
        f"{edits.lines.path} removes all {len(corpus)} passages of "
        f"{corpus.directory}, and a corpus has at least one."
      )
    writer.finish({"edited_from": corpus.fingerprint})
  return PassageCorpus.open(directory)


def _copy(writer: CorpusWriter, corpus: PassageCorpus, rows: range) -> None:
  for row, stored in zip(rows, corpus.stored(rows), strict=True):
    if writer.has(stored.uid_hash):
      raise ValueError(
        f"{corpus.directory}: the uid {corpus.passage(row).uid!r} of row {row} "
        "would occur twice, as a replaced document before it has more "
        "passages than it had. Replace or remove one of the two."
      )
    writer.append(stored)


def _add(writer: CorpusWriter, encoded: EncodedDocument) -> None:
  if len(encoded.text) == 0:
    raise ValueError(
      f"{encoded.document.origin}: the text of {encoded.document.uid!r} has no "
      "word piece; to remove the document write 'remove': true."
    )
  add_document(writer, encoded)


def _document(lines: JsonLines, number: int) -> Document:
  return to_document(lines[number], lines.where(number))


def unchanged_rows(
  old_hashes: UInt64[np.ndarray, "N_old"],
  new_hashes: UInt64[np.ndarray, "N_new"],
) -> Int64[np.ndarray, "N_new"]:
  """Returns for each new passage an old row of equal content, or -1.

  A vector that a retriever made of the old row is its vector of the new one,
  wherever the passage now stands and whatever its uid. Of several equal old
  rows it is the first.

  Args:
    old_hashes: `passage_hashes` of the corpus that has vectors.
    new_hashes: those of the corpus that needs them.
  """
  rows = np.full(len(new_hashes), -1, np.int64)
  if len(old_hashes) == 0:
    return rows
  order = np.argsort(old_hashes, kind="stable")
  ascending = old_hashes[order]
  for start in range(0, len(new_hashes), _HASHES_AT_ONCE):
    wanted = new_hashes[start : start + _HASHES_AT_ONCE]
    at = np.searchsorted(ascending, wanted)
    at = np.minimum(at, len(ascending) - 1)
    found = ascending[at] == wanted
    rows[start : start + len(wanted)][found] = order[at[found]]
  return rows
