# SPDX-License-Identifier: Apache-2.0
"""A corpus in parts: documents cut to passages by many processes, resumably.

  PARTS.json          what was asked for; written first
  tokenizer.json      makes the pieces
  00000-000000.arrow  file, chunk: the passages of some documents

A part depends on its own chunk of a source alone: who makes it, and when,
changes nothing. `assemble` makes the corpus of them, in their order.
"""

from collections.abc import Callable, Iterable, Iterator
import itertools
import pathlib
import shutil
from typing import Any, NamedTuple

from etils import epath
import numpy as np
import pyarrow as pa

from realm_jax import files
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import counted_corpus
from realm_jax.data.corpus_writer import PassageFormat, StoredPassage
from realm_jax.data.passages import (
  CutPassage,
  cut_document,
  encode_documents,
)
from realm_jax.data.sources import Raw, read_raw, source_paths, to_clean
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.mirror import CORPORA, HostCopy

FORMAT = 1
SETTINGS = "PARTS.json"
PARTS = "*.arrow"
# Documents that a process takes at a time: seconds of work, megabytes.
CHUNK_DOCUMENTS = 500
_COUNTS = ("num_documents", "num_empty")
_SCHEMA = pa.schema(
  [
    ("record", pa.binary()),
    ("uid_hash", pa.uint64()),
    ("content_hash", pa.uint64()),
    ("pieces", pa.binary()),
    ("title_length", pa.uint16()),
    ("sentence_starts", pa.binary()),
    ("starts_document", pa.bool_()),
    ("is_named", pa.bool_()),
    ("origin", pa.string()),
  ]
)


class Chunk(NamedTuple):
  """Some documents of a source, next to one another."""

  name: str  # Of the part that they become.
  raw: list[Raw]


def parts_folder(output: epath.PathLike) -> pathlib.Path:
  """Returns where the parts of a corpus are until it is complete."""
  folder = HostCopy(CORPORA, output).folder
  return folder.with_name(f".{folder.name}.parts")


def begin(
  folder: pathlib.Path,
  tokenizer: Tokenizer,
  max_pieces: int,
  facts: dict[str, Any],
) -> None:
  """Makes a folder for parts, or goes on with one.

  Args:
    folder: of `parts_folder`.
    tokenizer: makes the pieces; a copy is kept for other processes.
    max_pieces: P.
    facts: of the source.

  Raises:
    ValueError: it was begun otherwise; says how.
    OSError: it cannot be written.
  """
  asked = {
    "format": FORMAT,
    "tokenizer": tokenizer.fingerprint,
    "max_pieces": max_pieces,
    "chunk_documents": CHUNK_DOCUMENTS,
    **facts,
  }
  files.claim(folder / SETTINGS, asked)
  tokenizer.save(folder)


def read_chunks(source: str) -> Iterator[Chunk]:
  """Yields the chunks of a source; each file begins one.

  Raises:
    FileNotFoundError, ValueError: as `read_documents` does.
  """
  for file, path in enumerate(source_paths(source)):
    yield from file_chunks(file, path)


def file_chunks(file: int, path: str) -> Iterator[Chunk]:
  """Yields the chunks of one file, which is number `file` of its source."""
  raw = read_raw(path)
  for number in itertools.count():
    chunk = list(itertools.islice(raw, CHUNK_DOCUMENTS))
    if not chunk:
      return
    yield Chunk(f"{file:05d}-{number:06d}.arrow", chunk)


class PartMaker:
  """Makes parts; a process needs nothing but the folder to be one."""

  def __init__(self, folder: pathlib.Path, max_pieces: int) -> None:
    """Loads the tokenizer that `begin` left in the folder."""
    self._folder = folder
    self._tokenizer = load_tokenizer(folder)
    self._format = PassageFormat(self._tokenizer, max_pieces)

  def make(self, chunk: Chunk) -> int:
    """Writes a part, which appears whole; returns its passages' number.

    Raises:
      ValueError: a document cannot be read.
      OSError: the disk refuses.
    """
    counts = dict.fromkeys(_COUNTS, 0)
    passages: list[CutPassage] = []
    cleaned = (to_clean(raw) for raw in chunk.raw)
    documents = (document for document in cleaned if document is not None)
    for batch in encode_documents(documents, self._tokenizer):
      for encoded in batch:
        counts["num_documents"] += 1
        counts["num_empty"] += len(encoded.text) == 0
        passages.extend(cut_document(encoded, self._format))
    _write(self._folder / chunk.name, passages, counts)
    return len(passages)


def _write(
  path: pathlib.Path, passages: Iterable[CutPassage], counts: dict[str, int]
) -> None:
  rows = [
    (
      p.stored.record,
      p.stored.uid_hash,
      p.stored.content_hash,
      p.stored.pieces.tobytes(),
      p.stored.title_length,
      p.stored.sentence_starts.tobytes(),
      p.stored.starts_document,
      p.is_named,
      p.origin,
    )
    for p in passages
  ]
  columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
  arrays = [
    pa.array(column, field.type)
    for column, field in zip(columns, _SCHEMA, strict=True)
  ]
  told = {name: str(count) for name, count in counts.items()}
  schema = _SCHEMA.with_metadata(told)
  table = pa.table(arrays, schema=schema)
  options = pa.ipc.IpcWriteOptions(compression="zstd")
  with (
    files.new_file(path) as own,
    pa.ipc.new_file(own, schema, options=options) as writer,
  ):
    writer.write_table(table)


def _read(
  path: pathlib.Path, dtype: np.dtype
) -> tuple[list[CutPassage], dict[str, int]]:
  with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
    table = reader.read_all()
    columns = [column.to_pylist() for column in table.columns]
    told = table.schema.metadata
  counts = {name: int(told[name.encode()]) for name in _COUNTS}
  passages = [
    CutPassage(
      StoredPassage(
        record=record,
        uid_hash=uid_hash,
        content_hash=content_hash,
        pieces=np.frombuffer(pieces, dtype),
        title_length=title_length,
        sentence_starts=np.frombuffer(starts, np.uint16),
        starts_document=starts_document,
      ),
      is_named,
      origin,
    )
    for (
      record,
      uid_hash,
      content_hash,
      pieces,
      title_length,
      starts,
      starts_document,
      is_named,
      origin,
    ) in zip(*columns, strict=True)
  ]
  return passages, counts


def assemble(
  folder: pathlib.Path,
  names: Iterable[str],
  output: epath.PathLike,
  max_pieces: int,
  progress: Callable[[int], None] | None = None,
) -> PassageCorpus:
  """Makes the corpus of all its parts, and removes them.

  Args:
    folder: has the parts, and the tokenizer.
    names: of the parts, in their order.
    output: the corpus' directory; must not exist yet.
    max_pieces: P.
    progress: called now and then with the number of passages so far.

  Raises:
    FileExistsError: `output` is there.
    ValueError: no passage at all, or a uid that occurs twice.
    OSError: the disk refuses. The parts stay, in any case of failure.
  """
  tokenizer = load_tokenizer(folder)
  dtype = PassageFormat(tokenizer, max_pieces).token_dtype
  parts = (_read(folder / name, dtype) for name in names)
  corpus = counted_corpus(parts, tokenizer, output, max_pieces, progress)
  shutil.rmtree(folder)
  return corpus
