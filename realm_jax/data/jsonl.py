# SPDX-License-Identifier: Apache-2.0
"""Random access to the objects of a JSONL file; errors name file and line."""

from collections.abc import Iterator
import gzip
import json
import mmap
import os
from typing import Any, Protocol, runtime_checkable
import zlib

import numpy as np

from realm_jax.mirror import local_file

_SCAN_BYTES = 1 << 26
_CHECKED_RECORDS = 100_000  # Seconds, not minutes.


def parse_object(line: bytes, where: str) -> dict[str, Any]:
  """Returns the JSON object that a line holds.

  Raises:
    ValueError: not UTF-8, not JSON, or not an object; begins with `where`.
  """
  try:
    found = json.loads(line.decode("utf-8"))
  except ValueError as error:  # UnicodeDecodeError is one, too.
    raise ValueError(f"{where}: not a line of JSON: {error}") from error
  if not isinstance(found, dict):
    raise ValueError(
      f"{where}: expected a JSON object, got {type(found).__name__}."
    )
  return found


def text_field(found: dict[str, Any], name: str, where: str) -> str:
  """Returns a field that must be a non-blank string.

  Raises:
    ValueError: it is missing, blank, or something else.
  """
  value = found.get(name)
  if not isinstance(value, str) or not value.strip():
    raise ValueError(
      f"{where}: '{name}' must be a non-empty string, got {value!r}; the "
      f"object has {sorted(found)}."
    )
  return value


def optional_text(found: dict[str, Any], name: str, where: str) -> str:
  """Returns a field that may be missing or null: "" then.

  Raises:
    ValueError: it is something else than a string.
  """
  value = found.get(name)
  if not isinstance(value, str | None):
    raise ValueError(f"{where}: '{name}' must be a string, got {value!r}.")
  return value or ""


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
  """Yields (number, line) of a plain or .gz file, blank lines left out.

  Raises:
    OSError: the file cannot be opened.
    ValueError: a .gz that is broken or cut short.
  """
  for number, line in enumerate(_all_lines(path), start=1):
    if line.strip():
      yield number, line


def _all_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
  opener = gzip.open if str(path).endswith(".gz") else open
  number = 0
  with local_file(path) as local, opener(local, "rb") as file:
    try:
      for number, line in enumerate(file, start=1):  # noqa: B007
        yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise ValueError(
        f"{path}:{number + 1}: broken gzip data: {error}"
      ) from error


@runtime_checkable
class SupportsIndexing(Protocol):
  """Records by number."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


def check_first(records: SupportsIndexing) -> None:
  """Reads the first records, so that a bad file fails before work starts.

  A later bad line fails when it is read; errors name it either way.
  """
  for index in range(min(len(records), _CHECKED_RECORDS)):
    records[index]


class JsonLines:
  """The objects of a JSONL file by number; empty lines do not count.

  A plain file is memory-mapped; a .gz one is unpacked into memory.
  """

  def __init__(self, path: str | os.PathLike[str]) -> None:
    """Finds the lines; each is parsed when asked for.

    Raises:
      OSError: the file cannot be opened.
      ValueError: it has no line, or is a broken .gz.
    """
    self.path = str(path)
    self._data = self._load()
    starts, ends = _line_bounds(self._data)
    kept = np.flatnonzero(ends > starts)
    if kept.size == 0:
      raise ValueError(f"{self.path}:1: the file is empty.")
    self._starts, self._ends = starts[kept], ends[kept]
    self._numbers = kept + 1

  def _load(self) -> bytes | mmap.mmap:
    if self.path.endswith(".gz"):
      return b"".join(_all_lines(self.path))
    with local_file(self.path) as local, local.open("rb") as file:
      if os.fstat(file.fileno()).st_size == 0:
        return b""  # Which cannot be mapped.
      return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

  def __len__(self) -> int:
    return len(self._starts)

  def where(self, index: int) -> str:
    """Returns "path:line" of an object."""
    return f"{self.path}:{self._numbers[index]}"

  def __getitem__(self, index: int) -> dict[str, Any]:
    line = self._data[self._starts[index] : self._ends[index]]
    return parse_object(line, self.where(index))


def _line_bounds(data: bytes | mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
  """Returns where each line starts and ends, its newline left out."""
  view = np.frombuffer(data, np.uint8)
  breaks = [
    np.flatnonzero(view[at : at + _SCAN_BYTES] == ord("\n")) + at
    for at in range(0, len(view), _SCAN_BYTES)
  ]
  ends = np.concatenate([*breaks, [len(view)]]).astype(np.int64)
  starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
  return starts, ends
