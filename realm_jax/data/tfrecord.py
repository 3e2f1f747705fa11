# SPDX-License-Identifier: Apache-2.0
"""Records of TFRecord files, in order or by number, without TensorFlow.

A record is its length (u64, little-endian) and that number's checksum, then
its bytes and theirs. A checksum is a CRC-32C, rotated and offset ("masked").
"""

import array
from collections.abc import Iterator
import mmap
import os
import struct
from typing import BinaryIO

import google_crc32c

from realm_jax.mirror import local_file

_HEAD = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
# A length whose checksum holds is believed up to this: a passage has
# thousands of bytes, and a crafted file must not fill the memory.
_MAX_BYTES = 1 << 26


def read_records(path: str) -> Iterator[bytes]:
  """Yields the records of a file, one at a time in memory.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it ends inside a record, or a checksum does not hold; names
      the file and the record, counted from 0.
  """
  with local_file(path) as local, local.open("rb") as file:
    number = 0
    while head := file.read(_HEAD.size):
      yield _read_record(file, head, f"{path}: record {number}")
      number += 1


class RecordFile:
  """The records of a file by number, which is memory-mapped."""

  def __init__(self, path: str) -> None:
    """Finds the records; the bytes of each are checked when asked for.

    Raises:
      OSError: the file cannot be opened.
      ValueError: a record's length is not what its checksum says, or leaves
        the file: it is damaged, cut short, or no TFRecord file.
    """
    self._path = path
    starts = array.array("q")
    with local_file(path) as local, local.open("rb") as file:
      size = os.fstat(file.fileno()).st_size
      # An empty file cannot be mapped.
      self._data: mmap.mmap | bytes = b""
      if size:
        self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = 0
    while at < size:
      where = f"{path}: record {len(starts)}"
      head = self._data[at : at + _HEAD.size]
      length = _read_length(head, where)
      starts.append(at)
      at += _HEAD.size + length + _CHECKSUM.size
      if at > size:
        raise ValueError(
          f"{where}: the file ends {at - size} bytes too early. It was cut "
          "short: copy it again."
        )
    self._starts = starts

  def __len__(self) -> int:
    return len(self._starts)

  def where(self, index: int) -> str:
    """Returns "path: record number"."""
    return f"{self._path}: record {index}"

  def __getitem__(self, index: int) -> bytes:
    """Returns a record's bytes.

    Raises:
      ValueError: the checksum does not hold.
    """
    start = self._starts[index] + _HEAD.size
    (length, _) = _HEAD.unpack(self._data[start - _HEAD.size : start])
    end = start + length
    data = self._data[start:end]
    (checksum,) = _CHECKSUM.unpack(self._data[end : end + _CHECKSUM.size])
    _check(data, checksum, self.where(index))
    return data


def _read_length(head: bytes, where: str) -> int:
  _check_length(head, _HEAD.size, where)
  size, checksum = _HEAD.unpack(head)
  _check(head[:8], checksum, where)
  if size > _MAX_BYTES:
    raise ValueError(
      f"{where}: it claims {size:,} bytes, and at most {_MAX_BYTES:,} are read."
    )
  return size


def _read_record(file: BinaryIO, head: bytes, where: str) -> bytes:
  size = _read_length(head, where)
  data = file.read(size)
  _check_length(data, size, where)
  tail = file.read(_CHECKSUM.size)
  _check_length(tail, _CHECKSUM.size, where)
  (checksum,) = _CHECKSUM.unpack(tail)
  _check(data, checksum, where)
  return data


def _check_length(data: bytes, wanted: int, where: str) -> None:
  if len(data) < wanted:
    raise ValueError(
      f"{where}: the file ends {wanted - len(data)} bytes too early. It was "
      "cut short: copy it again."
    )


def _check(data: bytes, expected: int, where: str) -> None:
  found = masked_checksum(data)
  if found != expected:
    raise ValueError(
      f"{where}: checksum {found:08x}, expected {expected:08x}. The file is "
      "damaged, or is no TFRecord file (a compressed one has to be unpacked "
      "first)."
    )


def masked_checksum(data: bytes) -> int:
  """Returns the masked CRC-32C of some bytes."""
  crc = google_crc32c.value(data)
  rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
  return (rotated + _MASK_DELTA) & 0xFFFFFFFF
