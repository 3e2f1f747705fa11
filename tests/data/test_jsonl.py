# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/jsonl.py."""

import gzip

import pytest

from realm_jax.data import jsonl

_LINES = '{"a": 1}\n\n{"a": "é"}\n{"a": 3}'


def _write(path, text):
  if path.suffix == ".gz":
    path.write_bytes(gzip.compress(text.encode()))
  else:
    path.write_text(text, encoding="utf-8")
  return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_objects_by_number_whatever_the_packing(tmp_path, name, end):
  lines = jsonl.JsonLines(_write(tmp_path / name, _LINES + end))
  assert [lines[i]["a"] for i in (2, 0, 1)] == [3, 1, "é"]
  assert len(lines) == 3
  assert lines.where(1) == f"{tmp_path / name}:3"  # The empty line counts.


def test_line_ends_are_found_across_scans(tmp_path, monkeypatch):
  monkeypatch.setattr(jsonl, "_SCAN_BYTES", 3)
  lines = jsonl.JsonLines(_write(tmp_path / "x.jsonl", _LINES))
  assert [lines[i]["a"] for i in range(3)] == [1, "é", 3]


@pytest.mark.parametrize(
  ("line", "message"),
  [("{", "not a line of JSON"), ("[1]", "expected a JSON object, got list")],
)
def test_a_bad_line_is_named(tmp_path, line, message):
  path = _write(tmp_path / "x.jsonl", '{"a": 1}\n' + line)
  with pytest.raises(ValueError, match=rf"x\.jsonl:2: {message}"):
    jsonl.JsonLines(path)[1]


def test_bytes_that_are_no_text_are_named(tmp_path):
  (tmp_path / "x.jsonl").write_bytes(b'{"a": "\xff"}')
  with pytest.raises(ValueError, match=r"x\.jsonl:1: not a line of JSON"):
    jsonl.JsonLines(tmp_path / "x.jsonl")[0]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_an_error(tmp_path, text):
  with pytest.raises(ValueError, match=r"x\.jsonl:1: the file is empty"):
    jsonl.JsonLines(_write(tmp_path / "x.jsonl", text))


@pytest.mark.parametrize("cut", [slice(0, -12), slice(3, None)])
def test_broken_gzip_is_named(tmp_path, cut):
  whole = gzip.compress(_LINES.encode() * 100)
  (tmp_path / "x.jsonl.gz").write_bytes(whole[cut])
  with pytest.raises(ValueError, match=r"x\.jsonl\.gz:\d+: broken gzip"):
    jsonl.JsonLines(tmp_path / "x.jsonl.gz")
  with pytest.raises(ValueError, match=r"x\.jsonl\.gz:\d+: broken gzip"):
    list(jsonl.read_lines(tmp_path / "x.jsonl.gz"))


def test_a_missing_file_is_an_os_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    jsonl.JsonLines(tmp_path / "none.jsonl")


def test_fields_are_checked():
  assert jsonl.optional_text({}, "a", "f:1") == ""
  assert jsonl.optional_text({"a": None}, "a", "f:1") == ""
  with pytest.raises(ValueError, match="f:1: 'a' must be a string, got 3"):
    jsonl.optional_text({"a": 3}, "a", "f:1")
  with pytest.raises(ValueError, match=r"f:1: 'a' must be a non-empty string"):
    jsonl.text_field({"a": " "}, "a", "f:1")


def test_only_the_first_records_are_read_early(monkeypatch):
  monkeypatch.setattr(jsonl, "_CHECKED_RECORDS", 2)

  class Records:
    def __len__(self):
      return 3

    def __getitem__(self, index):
      assert index < 2

  jsonl.check_first(Records())
