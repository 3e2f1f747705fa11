# SPDX-License-Identifier: Apache-2.0
"""Readers of documents: each streams `Document`s from files of one kind."""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import os
import pathlib
import re

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq

from realm_jax import files
from realm_jax.data import wiki
from realm_jax.data.jsonl import parse_object, read_lines
from realm_jax.data.records import Document
from realm_jax.data.tfds_records import PREFIX, open_split
from realm_jax.data.tfrecord import read_records
from realm_jax.mirror import local_file

_PARQUET_ROWS = 1024
_FACTBOOK = "factbook"
# Wikipedia names the parts of a dump by their pages.
_DUMP = re.compile(r"(.*\.xml)(?:-p\d+p\d+)?(?:\.bz2)?$")
_TFDS_WIKIPEDIA = f"{PREFIX}wikipedia"


# What `read_raw` yields: a document, or a page that is still to be cleaned.
Raw = Document | wiki.RawPage


def read_documents(source: str) -> Iterator[Document]:
  """Yields the documents of a source, in a fixed order.

  Args:
    source: "factbook", or a file, or a pattern ("news/*.jsonl.gz") of
      .jsonl: {"text", "title"?, "uid"? or "id"?} a line;
      .parquet: columns of the same names;
      .txt: paragraphs between blank lines, titled by the file's name;
      .xml: a MediaWiki dump's articles, whose uids are their pages' numbers;
      .tfr: ORQA's released blocks.tfr, beside its titles.tfr; a block's uid is
      its number there, from 0.
      .jsonl, .txt and .xml may be packed (.gz, and .xml as .bz2). All may be
      in a store.
      "tfds:wikipedia/<config>/<split>" is TFDS' set of that name, or any other
      with a title and a text.

  Raises:
    FileNotFoundError: no file has that name.
    ValueError: an unknown ending, or content that cannot be read; names the
      file and the line, row or record.
  """
  for path in source_paths(source):
    for raw in read_raw(path):
      if (document := to_clean(raw)) is not None:
        yield document


def source_paths(source: str) -> list[str]:
  """Returns the names of what a source is made of, in their order."""
  return files.matching(source) or [source]


def source_files(source: str) -> list[list[str | int]]:
  """Returns [name, bytes] of each file of a source, to know it again by.

  Raises:
    FileNotFoundError: no file has that name.
  """
  if source == _FACTBOOK or source.startswith(PREFIX):
    return [[source, 0]]
  paths = source_paths(source)
  return [[files.absolute(path), files.size(path)] for path in paths]


def read_raw(path: str) -> Iterator[Raw]:
  """Yields what `to_clean` makes the documents of one of `source_paths` of.

  So that what takes long, the cleaning of a dump's pages, can be shared out.

  Raises:
    FileNotFoundError, ValueError: as `read_documents` does.
  """
  if path == _FACTBOOK:
    from realm_jax.data import factbook

    yield from factbook.read_factbook()
  elif path.startswith(PREFIX):
    yield from _read_tfds(path)
  else:
    yield from _reader_of(path)(path)


def to_clean(raw: Raw) -> Document | None:
  """Returns the document, or None where a page is no article.

  Raises:
    ValueError: a page that cannot be read; names the file.
  """
  return wiki.to_document(raw) if isinstance(raw, wiki.RawPage) else raw


def _read_tfds(name: str) -> Iterator[Document]:
  records = open_split(name)
  for index in range(len(records)):
    found = records[index]
    where = f"{name}: record {index}"
    for field in ("title", "text"):
      value = found.get(field)
      if isinstance(value, bytes):
        found[field] = value.decode("utf-8")
    document = to_document(found, where)
    if not name.startswith(_TFDS_WIKIPEDIA) or wiki.is_article_title(
      document.title
    ):
      yield document


def _reader_of(path: str) -> Callable[[str], Iterator[Raw]]:
  plain = path.removesuffix(".gz")
  if dump := _DUMP.match(plain):
    plain = dump[1]
  for ending, reader in _READERS.items():
    if plain.endswith(ending):
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
  with contextlib.ExitStack() as stack:
    local = stack.enter_context(local_file(path))
    try:
      file = stack.enter_context(pq.ParquetFile(local))
    except pa.ArrowInvalid as error:
      raise ValueError(f"{path}: not a Parquet file: {error}") from error
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
  if name == os.path.basename(beside) or not epath.Path(beside).exists():
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


_READERS: dict[str, Callable[[str], Iterator[Raw]]] = {
  ".jsonl": _read_jsonl,
  ".parquet": _read_parquet,
  ".txt": _read_text,
  ".tfr": _read_orqa_blocks,
  ".xml": wiki.read_pages,
}
