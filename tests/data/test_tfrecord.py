# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/tfrecord.py."""

import contextlib
import os
import struct

import pytest
from tensorboardX.record_writer import RecordWriter

from realm_jax.data import tfrecord

_RECORDS = [b"first", b"", b"\x00" * 1000, "dernière".encode()]


@pytest.fixture
def path(tmp_path):
  """Written by another library."""
  with contextlib.closing(RecordWriter(str(tmp_path / "x.tfr"))) as writer:
    for record in _RECORDS:
      writer.write(record)
  return str(tmp_path / "x.tfr")


def _slow_checksum(data):
  """CRC-32C bit by bit, then masked by its definition."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_the_checksum_is_the_slow_one():
  for data in (b"", b"123456789", bytes(range(256))):
    assert tfrecord.masked_checksum(data) == _slow_checksum(data)
  crc = 0xE3069283  # Of "123456789", as CRC-32C's specification gives it.
  rotated = (crc >> 15 | crc << 17) % 2**32
  masked = (rotated + 0xA282EAD8) % 2**32
  assert tfrecord.masked_checksum(b"123456789") == masked


def test_records_are_read_as_written(path):
  assert list(tfrecord.read_records(path)) == _RECORDS


def test_an_empty_file_has_none(tmp_path):
  (tmp_path / "x.tfr").touch()
  assert list(tfrecord.read_records(str(tmp_path / "x.tfr"))) == []


def test_a_file_cut_anywhere_names_the_record(path):
  ends = [0]
  for record in _RECORDS:
    ends.append(ends[-1] + 12 + len(record) + 4)
  assert ends[-1] == os.path.getsize(path)
  for size in range(ends[-1] - 1, 0, -7):
    os.truncate(path, size)
    whole = [end for end in ends if end <= size]
    if size in ends:
      assert len(list(tfrecord.read_records(path))) == len(whole) - 1
      continue
    where = rf"x\.tfr: record {len(whole) - 1}: the file ends \d+ bytes too"
    with pytest.raises(ValueError, match=where):
      list(tfrecord.read_records(path))


def test_any_changed_byte_is_noticed(path):
  with open(path, "rb") as file:
    good = file.read()
  second = 12 + len(_RECORDS[0]) + 4
  for place in (0, 3, 8, 11, 12, 16, second - 1, second, second + 9):
    damaged = bytearray(good)
    damaged[place] ^= 0x10
    with open(path, "wb") as file:
      file.write(damaged)
    number = int(place >= second)
    with pytest.raises(ValueError, match=rf"record {number}: checksum"):
      list(tfrecord.read_records(path))


def test_a_huge_record_is_not_read(tmp_path):
  length = struct.pack("<Q", 1 << 40)
  checksum = struct.pack("<I", tfrecord.masked_checksum(length))
  (tmp_path / "x.tfr").write_bytes(length + checksum)
  with pytest.raises(ValueError, match="it claims 1,099,511,627,776 bytes"):
    list(tfrecord.read_records(str(tmp_path / "x.tfr")))


def test_records_are_read_one_at_a_time(path):
  """What comes before the damage is there before it is met."""
  with open(path, "ab") as file:
    file.write(b"rubbish")
  reading = tfrecord.read_records(path)
  assert [next(reading) for _ in _RECORDS] == _RECORDS
  with pytest.raises(ValueError, match="record 4"):
    next(reading)


def test_records_come_by_number(path):
  file = tfrecord.RecordFile(path)
  assert [file[i] for i in (3, 0, 2, 1)] == [_RECORDS[i] for i in (3, 0, 2, 1)]
  assert len(file) == 4 and file.where(2) == f"{path}: record 2"


def test_damage_is_found_when_a_record_is_asked_for(path):
  with open(path, "r+b") as damaged:
    damaged.seek(12)
    damaged.write(b"F")
  file = tfrecord.RecordFile(path)
  assert file[1] == _RECORDS[1]
  with pytest.raises(ValueError, match="record 0: checksum"):
    file[0]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_file_cut_short_is_refused_at_once(path, cut):
  os.truncate(path, os.path.getsize(path) - cut)
  with pytest.raises(ValueError, match=r"record 3: the file ends \d+ bytes"):
    tfrecord.RecordFile(path)


def test_an_empty_file_has_no_records(tmp_path):
  (tmp_path / "x.tfr").touch()
  assert len(tfrecord.RecordFile(str(tmp_path / "x.tfr"))) == 0
