# SPDX-License-Identifier: Apache-2.0
"""The knowledge corpus: an immutable directory of tokenised passages.

  tokens.bin, offsets.npy      title and body pieces of all passages, flat
  title_lengths.npy            how many of a passage's pieces are its title's
  sentences.bin, sentence_offsets.npy   first piece of each sentence in a body
  passages.array_record        {"uid", "title", "text"} of each, for showing
  uid_hashes.npy, uid_rows.npy hashes in ascending order, and their rows
  MANIFEST.json                counts and fingerprints

All arrays are memory-mapped: an open corpus costs what is read of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any

from array_record.python import array_record_module
from jaxtyping import Int32
import numpy as np

from realm_jax.data.corpus_writer import (
  FORMAT,
  MANIFEST,
  CorpusWriter,
  uid_hash,
)
from realm_jax.data.records import Document, Passage
from realm_jax.data.splitting import (
  pack_sentences,
  piece_bounds,
  split_sentences,
)
from realm_jax.data.tokenize import Encoding, Tokenizer

NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]
# Random access: one passage is unpacked, none is read ahead.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_DOCUMENTS_AT_ONCE = 256
Row = int | np.integer  # Of the corpus; arrays of neighbours hold the latter.


class PassageCorpus:
  """Passages by row: 0 to len - 1, in the order of their source.

  Attributes:
    directory: where it lies.
    fingerprint: of pieces, uids, titles and texts.
    tokenizer_fingerprint: of the tokenizer that made the pieces.
    max_pieces: P, the longest passage may be, its 3 special tokens included.
    tokens: u16 or u32[all pieces], each passage's title, then its body.
    offsets: i64[N + 1], where each passage starts in `tokens`.
    title_lengths: i32[N].
    lengths: i32[N], pieces of title and body together.
  """

  def __init__(self, directory: str | os.PathLike[str]) -> None:
    """Maps the arrays; `open` is the name to call it by."""
    self.directory = pathlib.Path(directory)
    manifest = _read_manifest(self.directory)
    self.fingerprint: str = manifest["fingerprint"]
    self.tokenizer_fingerprint: str = manifest["tokenizer_fingerprint"]
    self.max_pieces: int = manifest["max_pieces"]
    self.tokens = np.memmap(
      self.directory / "tokens.bin", manifest["token_dtype"], "r"
    )
    self.offsets = self._load("offsets")
    self.title_lengths = self._load("title_lengths").astype(np.int32)
    self.lengths = np.diff(self.offsets).astype(np.int32)
    self._sentences = np.memmap(
      self.directory / "sentences.bin", np.uint16, "r"
    )
    self._sentence_offsets = self._load("sentence_offsets")
    self._uid_hashes = self._load("uid_hashes")
    self._uid_rows = self._load("uid_rows")
    self._records = array_record_module.ArrayRecordReader(
      str(self.directory / "passages.array_record"), _READER_OPTIONS
    )

  @classmethod
  def open(cls, directory: str | os.PathLike[str]) -> "PassageCorpus":
    """Opens a corpus that `build_corpus` has finished.

    Raises:
      FileNotFoundError: there is no finished corpus.
      ValueError: it is of another format.
    """
    return cls(directory)

  def _load(self, name: str) -> np.ndarray:
    return np.load(self.directory / f"{name}.npy", mmap_mode="r")

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
    """Returns several passages in one read."""
    found = self._records.read([int(row) for row in rows])
    return [Passage(**json.loads(record)) for record in found]

  def row_of(self, uid: str) -> int | None:
    """Returns the row that has this uid, or None."""
    wanted = uid_hash(uid)
    at = int(np.searchsorted(self._uid_hashes, np.uint64(wanted)))
    if at == len(self) or int(self._uid_hashes[at]) != wanted:
      return None
    row = int(self._uid_rows[at])
    # A strange uid may share its hash with one of ours.
    return row if self.passage(row).uid == uid else None

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


def _read_manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / MANIFEST
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


def build_corpus(
  documents: Iterable[Document],
  tokenizer: Tokenizer,
  directory: str | os.PathLike[str],
  max_pieces: int,
  progress: Callable[[int], None] | None = None,
) -> PassageCorpus:
  """Splits, tokenises and stores documents; returns the opened corpus.

  A document becomes passages of whole sentences (ORQA's blocks). The first
  has the document's uid, the next ones `uid#1`, `uid#2`, ...; without a uid,
  a passage's is the SHA-1 of its title and text, and a passage that repeats
  an earlier one word for word is left out. One pass; memory grows by about
  130 bytes a passage.

  Args:
    documents: read once, in order; one without text is left out.
    tokenizer: makes the pieces.
    directory: must not exist yet; it appears when it is complete.
    max_pieces: P, pieces of a passage with its title and special tokens. A
      longer title than half of that is cut.
    progress: called now and then with the number of passages so far.

  Raises:
    FileExistsError: `directory` is there.
    ValueError: no passage at all, a uid that occurs twice, `max_pieces` out
      of range; and what reading `documents` raises.
    OSError: the files cannot be written. In no case is anything left behind.
  """
  if not 8 <= max_pieces < 1 << 16:
    raise ValueError(f"max_pieces must be in 8..65535, got {max_pieces}.")
  counts = {"num_documents": 0, "num_empty": 0, "num_repeated": 0}
  with CorpusWriter(pathlib.Path(directory), tokenizer.vocab_size) as writer:
    for batch in _in_batches(documents):
      titles = tokenizer.encode_batch([document.title for document in batch])
      texts = tokenizer.encode_batch([document.text for document in batch])
      for document, title, text in zip(batch, titles, texts, strict=True):
        counts["num_documents"] += 1
        counts["num_empty"] += len(text) == 0
        title_ids = title.ids[: (max_pieces - NUM_SPECIALS) // 2]
        counts["num_repeated"] += _add_document(
          writer, document, title_ids, text, max_pieces
        )
      if progress:
        progress(writer.num_passages)
    if writer.num_passages == 0:
      raise ValueError(
        f"The source of {directory} has no passage: {counts['num_documents']} "
        f"documents, of which {counts['num_empty']} are without text."
      )
    writer.finish(
      {
        "max_pieces": max_pieces,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        **counts,
      }
    )
  return PassageCorpus.open(directory)


def _in_batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
  stream = iter(documents)
  while batch := list(itertools.islice(stream, _DOCUMENTS_AT_ONCE)):
    yield batch


def _add_document(
  writer: CorpusWriter,
  document: Document,
  title_ids: Int32[np.ndarray, "t"],
  text: Encoding,
  max_pieces: int,
) -> int:
  """Adds a document's passages; returns how many were there already."""
  num_repeated = 0
  bounds = piece_bounds(text, split_sentences(document.text))
  budget = max_pieces - NUM_SPECIALS - len(title_ids)
  for part, cuts in enumerate(pack_sentences(text, bounds, budget)):
    first, stop = cuts[0], cuts[-1]
    characters = document.text[text.starts[first] : text.ends[stop - 1]]
    uid = _passage_uid(document, part, characters)
    if not writer.has(uid):
      passage = Passage(uid=uid, title=document.title, text=characters)
      writer.add(passage, title_ids, text.ids[first:stop], cuts[:-1] - first)
    elif document.uid:
      raise ValueError(
        f"{document.origin or document.title}: the uid {uid!r} occurs twice, "
        "and passages are told apart by it. Make it unique, or leave it out."
      )
    else:
      num_repeated += 1
  return num_repeated


def _passage_uid(document: Document, part: int, characters: str) -> str:
  if document.uid:
    return f"{document.uid}#{part}" if part else document.uid
  digest = hashlib.sha1(f"{document.title}\n{characters}".encode())
  return digest.hexdigest()
