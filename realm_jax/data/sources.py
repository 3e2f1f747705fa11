# SPDX-License-Identifier: Apache-2.0
"""Readers of documents: each streams `Document`s from files of one kind."""

from collections.abc import Callable, Iterator
import glob
import itertools
import os
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from realm_jax.data.jsonl import parse_object, read_lines
from realm_jax.data.records import Document
from realm_jax.data.tfrecord import read_records

_PARQUET_ROWS = 1024


def read_documents(source: str) -> Iterator[Document]:
  """Yields the documents of a source, in a fixed order.

  Args:
    source: "factbook", or a file, or a pattern ("news/*.jsonl.gz") of
      .jsonl: {"text", "title"?, "uid"? or "id"?} a line;
      .parquet: columns of the same names;
      .txt: paragraphs between blank lines, titled by the file's name;
      .tfr: ORQA's released blocks.tfr, beside its titles.tfr; a block's uid is
      its number there, from 0.
      .jsonl and .txt may be gzipped (.gz).

  Raises:
    FileNotFoundError: no file has that name.
    ValueError: an unknown ending, or content that cannot be read; names the
      file and the line, row or record.
  """
  if source == "factbook":
    from realm_jax.data import factbook

    yield from factbook.read_factbook()
    return
  for path in _paths(source):
    yield from _reader_of(path)(path)


def source_files(source: str) -> list[list[str | int]]:
  """Returns [name, bytes] of each file of a source, to know it again by.

  Raises:
    FileNotFoundError: no file has that name.
  """
  if source == "factbook":
    return [[source, 0]]
  return [[os.path.abspath(p), os.path.getsize(p)] for p in _paths(source)]


def _paths(source: str) -> list[str]:
  return sorted(glob.glob(source)) or [source]


def _reader_of(path: str) -> Callable[[str], Iterator[Document]]:
  for ending, reader in _READERS.items():
    if path.removesuffix(".gz").endswith(ending):
      return reader
  raise ValueError(
    f"{path}: no reader for this kind of file; known endings are "
    f"{sorted(_READERS)}, and the source 'factbook'."
  )


def _read_jsonl(path: str) -> Iterator[Document]:
  for number, line in read_lines(path):
    where = f"{path}:{number}"
    yield to_document(parse_object(line, where), where)


def to_document(found: dict[str, object], where: str) -> Document:
  """Returns the document that an object of a JSONL file or a row holds.

  Raises:
    ValueError: a field is of another type; begins with `where`.
  """
  title, text = found.get("title") or "", found.get("text")
  uid = found.get("uid", found.get("id"))
  if not isinstance(title, str):
    raise ValueError(f"{where}: 'title' must be a string, got {title!r}.")
  if not isinstance(text, str):
    raise ValueError(f"{where}: 'text' must be a string, got {text!r}.")
  if not isinstance(uid, str | int | None) or isinstance(uid, bool):
    raise ValueError(f"{where}: 'uid' must be a string, got {uid!r}.")
  return Document(
    title=title.strip(),
    text=text,
    uid="" if uid is None else str(uid),
    origin=where,
  )


def _read_parquet(path: str) -> Iterator[Document]:
  try:
    file = pq.ParquetFile(path)
  except pa.ArrowInvalid as error:
    raise ValueError(f"{path}: not a Parquet file: {error}") from error
  with file:
    if "text" not in file.schema_arrow.names:
      raise ValueError(
        f"{path}: no column 'text'; the columns are {file.schema_arrow.names}."
      )
    wanted = {"title", "text", "uid", "id"} & set(file.schema_arrow.names)
    row = 0
    for batch in file.iter_batches(_PARQUET_ROWS, columns=sorted(wanted)):
      for found in batch.to_pylist():
        row += 1
        yield to_document(found, f"{path}: row {row}")


def _read_text(path: str) -> Iterator[Document]:
  name = pathlib.Path(path.removesuffix(".gz")).stem
  paragraph: list[str] = []
  first = last = 0
  for number, line in read_lines(path):
    # `read_lines` leaves blank lines out: a gap in the numbers is one.
    if paragraph and number > last + 1:
      yield _to_paragraph(name, paragraph, f"{path}:{first}")
      paragraph = []
    if not paragraph:
      first = number
    paragraph.append(_decode(line, f"{path}:{number}").strip())
    last = number
  if paragraph:
    yield _to_paragraph(name, paragraph, f"{path}:{first}")


def _to_paragraph(name: str, lines: list[str], where: str) -> Document:
  return Document(title=name, text=" ".join(lines), origin=where)


def _read_orqa_blocks(path: str) -> Iterator[Document]:
  folder, name = os.path.split(path)
  beside = os.path.join(folder, name.replace("blocks", "titles"))
  if name == os.path.basename(beside) or not os.path.exists(beside):
    raise FileNotFoundError(
      f"{path}: ORQA's blocks come with their titles in another file: name "
      "the one that is called blocks.tfr, and keep titles.tfr beside it."
    )
  pairs = itertools.zip_longest(read_records(path), read_records(beside))
  for number, (block, title) in enumerate(pairs):
    if block is None or title is None:
      ends = path if block is None else beside
      raise ValueError(
        f"{ends} ends after {number} records, and the file beside it goes on: "
        f"{path} and {beside} do not belong together."
      )
    where = f"{path}: record {number}"
    yield Document(
      title=_decode(title, f"{beside}: record {number}").strip(),
      text=_decode(block, where),
      uid=str(number),
      origin=where,
    )


def _decode(text: bytes, where: str) -> str:
  try:
    return text.decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{where}: not UTF-8 text: {error}") from error


_READERS: dict[str, Callable[[str], Iterator[Document]]] = {
  ".jsonl": _read_jsonl,
  ".parquet": _read_parquet,
  ".txt": _read_text,
  ".tfr": _read_orqa_blocks,
}
