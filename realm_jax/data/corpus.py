# SPDX-License-Identifier: Apache-2.0
"""The knowledge corpus: an immutable directory of tokenised passages.

  tokens.bin, offsets.npy      title and body pieces of all passages, flat
  title_lengths.npy            how many of a passage's pieces are its title's
  sentences.bin, sentence_offsets.npy   first piece of each sentence in a body
  passages.array_record        {"uid", "title", "text"} of each, for showing
  uid_hashes.npy, uid_rows.npy hashes in ascending order, and their rows
  document_offsets.npy         first row of each document, and N
  passage_hashes.npy           of what the document tower reads of a passage
  tokenizer.json               the tokenizer that made the pieces
  MANIFEST.json                counts, fingerprints, checksums

All arrays are memory-mapped: an open corpus costs what is read of it. Of one
that lies in a store, this host has a copy (`mirror`).
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import itertools
import json
from typing import Any
import weakref

from array_record.python import array_record_module
from etils import epath
from jaxtyping import Int, Int32, UInt64
import numpy as np

from realm_jax.checksums import StoredFile
from realm_jax.data.corpus_writer import (
  FORMAT,
  MANIFEST,
  StoredPassage,
  uid_hash,
)
from realm_jax.data.records import Passage
from realm_jax.data.tokenize import Tokenizer
from realm_jax.mirror import CORPORA, HostCopy

# Random access: one passage is unpacked, none is read ahead.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_ROWS_AT_ONCE = 1024
Row = int | np.integer  # Of the corpus; arrays of neighbours hold the latter.


class PassageCorpus:
  """Passages by row: 0 to len - 1, in the order of their source.

  Attributes:
    directory: where it lies, a path or a URL.
    folder: its files on this host.
    fingerprint: of pieces, uids, titles and texts.
    tokenizer_fingerprint: of the tokenizer that made the pieces.
    max_pieces: P, the longest passage may be, its 3 special tokens included.
    tokens: u16 or u32[all pieces], each passage's title, then its body.
    offsets: i64[N + 1], where each passage starts in `tokens`.
    title_lengths: i32[N].
    lengths: i32[N], pieces of title and body together.
    passage_hashes: u64[N], of title pieces, body pieces and the tokenizer:
      passages of equal hashes have equal vectors. Two of 13 M passages that
      differ share a hash in one of 200,000 corpora.
  """

  def __init__(self, directory: epath.PathLike) -> None:
    """Maps the arrays; `open` is the name to call it by."""
    copy = HostCopy(CORPORA, directory)
    self.directory, self.folder = copy.source, copy.folder
    manifest = self._fetch(copy)
    self.fingerprint: str = manifest["fingerprint"]
    self.tokenizer_fingerprint: str = manifest["tokenizer_fingerprint"]
    self.max_pieces: int = manifest["max_pieces"]
    self.tokens = np.memmap(
      self.folder / "tokens.bin", manifest["token_dtype"], "r"
    )
    self.offsets = self._load("offsets")
    self.title_lengths = self._load("title_lengths").astype(np.int32)
    self.lengths = np.diff(self.offsets).astype(np.int32)
    self._sentences = np.memmap(self.folder / "sentences.bin", np.uint16, "r")
    self._sentence_offsets = self._load("sentence_offsets")
    self._uid_hashes = self._load("uid_hashes")
    self._uid_rows = self._load("uid_rows")
    self._document_offsets = self._load("document_offsets")
    self.passage_hashes = self._load("passage_hashes")
    self._records = array_record_module.ArrayRecordReader(
      str(self.folder / "passages.array_record"), _READER_OPTIONS
    )

  @classmethod
  def open(cls, directory: epath.PathLike) -> "PassageCorpus":
    """Opens a corpus that `corpus_build` has finished.

    Raises:
      FileNotFoundError: there is no finished corpus.
      ValueError: it is of another format, or damaged.
      OSError: this host has no room for a copy.
    """
    return cls(directory)

  def _fetch(self, copy: HostCopy) -> dict[str, Any]:
    """Sees to it that `folder` has the files, until this object is gone."""
    with contextlib.ExitStack() as stack:
      stack.enter_context(copy.in_use())
      manifest = read_manifest(copy.source)
      stored = [StoredFile(**file) for file in manifest.get("files", ())]
      if copy.is_copy and not stored:
        raise ValueError(
          f"The corpus {copy.source} was made before corpora listed their "
          "files, and cannot be copied: prepare it again."
        )
      copy.fetch(stored, checksums=False)
      weakref.finalize(self, stack.pop_all().close)
    return manifest

  def _load(self, name: str) -> np.ndarray:
    return np.load(self.folder / f"{name}.npy", mmap_mode="r")

  def __len__(self) -> int:
    return len(self.lengths)

  def title_ids(self, row: Row) -> Int32[np.ndarray, "n"]:
    """Returns the pieces of a passage's title."""
    start = self.offsets[row]
    stop = start + self.title_lengths[row]
    return self.tokens[start:stop].astype(np.int32)

  def body_ids(self, row: Row) -> Int32[np.ndarray, "n"]:
    """Returns the pieces of a passage's text, of which there is one or more."""
    start = self.offsets[row] + self.title_lengths[row]
    return self.tokens[start : self.offsets[row + 1]].astype(np.int32)

  def sentence_starts(self, row: Row) -> Int32[np.ndarray, "s"]:
    """Returns the first piece of each sentence, counted in the body."""
    start, stop = self._sentence_offsets[row : row + 2]
    return self._sentences[start:stop].astype(np.int32)

  @property
  def sentence_counts(self) -> Int32[np.ndarray, "N"]:
    """Returns how many sentences each passage has; read anew every time."""
    return np.diff(self._sentence_offsets).astype(np.int32)

  def passage(self, row: Row) -> Passage:
    """Returns a passage's uid, title and text."""
    return self.passages([row])[0]

  def passages(self, rows: Sequence[Row] | np.ndarray) -> list[Passage]:
    """Returns several passages, in the order of `rows`."""
    # A list of rows would take ArrayRecord time that grows with the corpus.
    found = [self._records.read(int(row), int(row) + 1) for row in rows]
    return [Passage(**json.loads(record)) for (record,) in found]

  def row_of(self, uid: str) -> int | None:
    """Returns the row that has this uid, or None."""
    wanted = uid_hash(uid)
    at = int(np.searchsorted(self._uid_hashes, np.uint64(wanted)))
    if at == len(self) or int(self._uid_hashes[at]) != wanted:
      return None
    row = int(self._uid_rows[at])
    # A strange uid may share its hash with one of ours.
    return row if self.passage(row).uid == uid else None

  def rows_in(
    self, other: "PassageCorpus", rows: Int[np.ndarray, "*n"]
  ) -> Int32[np.ndarray, "*n"]:
    """Returns which passages of another corpus have the uids of some of ours.

    Args:
      other: an edited corpus, say.
      rows: of this corpus; negative for none.

    Returns:
      Rows of `other`, or -1.
    """
    if other.fingerprint == self.fingerprint:
      return rows.astype(np.int32)
    hashes = self._row_uid_hashes[np.maximum(rows, 0)]
    at = np.searchsorted(other._uid_hashes, hashes)
    at = np.minimum(at, len(other) - 1)
    same = (rows >= 0) & (other._uid_hashes[at] == hashes)
    return np.where(same, other._uid_rows[at], -1).astype(np.int32)

  def document_rows(self, row: Row) -> range:
    """Returns the rows of all passages of the document that `row` is of."""
    number = int(self.document_numbers(np.int32(row)))
    start, stop = self._document_offsets[number : number + 2].tolist()
    return range(start, stop)

  @property
  def num_documents(self) -> int:
    """How many documents the passages are of."""
    return len(self._document_offsets) - 1

  def document_numbers(
    self, rows: Int32[np.ndarray, "*n"] | np.int32
  ) -> Int[np.ndarray, "*n"] | np.int64:
    """Returns which documents passages are of, 0 to `num_documents` - 1.

    A passage of a document without a uid is a document of its own.
    """
    # As int32: for another type, the whole array would be converted.
    return np.searchsorted(self._document_offsets, rows, side="right") - 1

  def stored(self, rows: range) -> Iterator[StoredPassage]:
    """Yields adjacent passages as the files hold them, in bounded memory."""
    for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
      stop = min(start + _ROWS_AT_ONCE, rows.stop)
      several = np.arange(start, stop, dtype=np.int32)
      document = np.searchsorted(self._document_offsets, several)
      pieces = self.offsets[start : stop + 1].tolist()
      sentences = self._sentence_offsets[start : stop + 1].tolist()
      columns = (
        self._records.read(start, stop),
        self._row_uid_hashes[start:stop].tolist(),
        self.passage_hashes[start:stop].tolist(),
        [self.tokens[slice(*cut)] for cut in itertools.pairwise(pieces)],
        self.title_lengths[start:stop].tolist(),
        [self._sentences[slice(*cut)] for cut in itertools.pairwise(sentences)],
        (self._document_offsets[document] == several).tolist(),
      )
      yield from map(StoredPassage, *columns)

  @functools.cached_property
  def _row_uid_hashes(self) -> UInt64[np.ndarray, "N"]:
    hashes = np.empty(len(self), np.uint64)
    hashes[self._uid_rows] = self._uid_hashes
    return hashes

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that did not make this corpus.

    Raises:
      ValueError: the fingerprints differ; names both.
    """
    if tokenizer.fingerprint != self.tokenizer_fingerprint:
      raise ValueError(
        f"The corpus {self.directory} was made with the tokenizer "
        f"{self.tokenizer_fingerprint[:12]}, and this run's is "
        f"{tokenizer.fingerprint[:12]}. Use the corpus' own tokenizer, or "
        "prepare the corpus again."
      )


def read_manifest(directory: epath.PathLike) -> dict[str, Any]:
  """Returns what a corpus says of itself.

  Raises:
    FileNotFoundError: there is no finished corpus.
    ValueError: it is of another format.
  """
  path = epath.Path(directory) / MANIFEST
  if not path.exists():
    raise FileNotFoundError(
      f"No corpus at {directory}: it has no {MANIFEST}. Make one with "
      "`realm prepare-corpus`."
    )
  manifest = json.loads(path.read_text())
  if manifest["format"] != FORMAT:
    raise ValueError(
      f"The corpus {directory} has format {manifest['format']}, and this "
      f"version reads {FORMAT}: prepare it again."
    )
  return manifest
