# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/sources.py."""

import contextlib
import dataclasses
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorboardX.record_writer import RecordWriter

from realm_jax import files
from realm_jax.data.records import Document
from realm_jax.data.sources import read_documents
from tests.data.wiki_dump import page, write_dump


def test_jsonl_plain_and_gzipped(tmp_path):
  rows = [
    {"title": "A", "text": "One.", "uid": "a"},
    {"text": "Two.", "id": 7},
    {"title": None, "text": "Three."},
  ]
  text = "\n".join(json.dumps(row) for row in rows)
  (tmp_path / "x.jsonl").write_text(text)
  (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(text.encode()))
  for name in ("x.jsonl", "x.jsonl.gz"):
    path = str(tmp_path / name)
    assert list(read_documents(path)) == [
      Document(title="A", text="One.", uid="a", origin=f"{path}:1"),
      Document(title="", text="Two.", uid="7", origin=f"{path}:2"),
      Document(title="", text="Three.", uid="", origin=f"{path}:3"),
    ]


def test_parquet(tmp_path):
  path = str(tmp_path / "x.parquet")
  table = {"text": ["One.", "Two."], "title": ["A", None], "other": [1, 2]}
  pq.write_table(pa.table(table), path)
  assert list(read_documents(path)) == [
    Document(title="A", text="One.", origin=f"{path}: row 1"),
    Document(title="", text="Two.", origin=f"{path}: row 2"),
  ]


def test_text_paragraphs(tmp_path):
  path = str(tmp_path / "tales.txt")
  with open(path, "w") as file:
    file.write("\nOne\nmore.\n \nTwo.\n\n\n")
  assert list(read_documents(path)) == [
    Document(title="tales", text="One more.", origin=f"{path}:2"),
    Document(title="tales", text="Two.", origin=f"{path}:5"),
  ]


def test_a_pattern_reads_its_files_in_order(tmp_path):
  for name in ("b", "a"):
    (tmp_path / f"{name}.txt").write_text(f"Of {name}.")
  found = read_documents(str(tmp_path / "*.txt"))
  assert [document.title for document in found] == ["a", "b"]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"title": "A"}', "'text' must be a string, got None"),
    ('{"text": "x", "title": 3}', "'title' must be a string, got 3"),
    ('{"text": "x", "uid": [1]}', "'uid' must be a string"),
    ('{"text": "x"', "not a line of JSON"),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
  path = tmp_path / "x.jsonl"
  path.write_text('{"text": "fine"}\n' + line)
  with pytest.raises(ValueError, match=rf"x\.jsonl:2: {message}"):
    list(read_documents(str(path)))


def test_bytes_that_are_no_text_are_named(tmp_path):
  (tmp_path / "x.txt").write_bytes(b"fine\n\xff\xfe\n")
  with pytest.raises(ValueError, match=r"x\.txt:2: not UTF-8"):
    list(read_documents(str(tmp_path / "x.txt")))


def test_parquet_without_text_or_content_is_named(tmp_path):
  path = tmp_path / "x.parquet"
  pq.write_table(pa.table({"body": ["x"]}), path)
  with pytest.raises(ValueError, match=r"x\.parquet: no column 'text'"):
    list(read_documents(str(path)))
  path.write_bytes(b"no parquet")
  with pytest.raises(ValueError, match=r"x\.parquet: not a Parquet file"):
    list(read_documents(str(path)))


def test_unknown_endings_and_missing_files(tmp_path):
  with pytest.raises(ValueError, match="no reader for this kind"):
    list(read_documents(str(tmp_path / "x.docx")))
  with pytest.raises(FileNotFoundError, match="none"):
    list(read_documents(str(tmp_path / "none.jsonl")))


def _write_records(path, *records):
  """By another library, as its event files are made."""
  with contextlib.closing(RecordWriter(str(path))) as writer:
    for record in records:
      writer.write(record if isinstance(record, bytes) else record.encode())
  return str(path)


def test_orqas_blocks_have_their_titles_and_numbers(tmp_path):
  _write_records(tmp_path / "titles.tfr", "Rome", "Perú", "Rome")
  blocks = ("It lies on the Tiber.", "Its capital is Lima.", "It is old.")
  path = _write_records(tmp_path / "blocks.tfr", *blocks)
  found = list(read_documents(path))
  assert [d.text for d in found] == list(blocks)
  assert [d.title for d in found] == ["Rome", "Perú", "Rome"]
  assert [d.uid for d in found] == ["0", "1", "2"]
  assert found[2].origin == f"{path}: record 2"


def test_blocks_and_titles_must_go_together(tmp_path):
  path = _write_records(tmp_path / "blocks.tfr", "One.", "Two.")
  with pytest.raises(FileNotFoundError, match=r"keep titles\.tfr beside it"):
    list(read_documents(path))
  titles = _write_records(tmp_path / "titles.tfr", "A")
  with pytest.raises(ValueError, match=r"titles\.tfr ends after 1 records"):
    list(read_documents(path))
  with pytest.raises(FileNotFoundError, match=r"called blocks\.tfr"):
    list(read_documents(titles))
  _write_records(tmp_path / "titles.tfr", "A", b"\xff")
  with pytest.raises(ValueError, match=r"titles\.tfr: record 1: not UTF-8"):
    list(read_documents(path))


def test_files_in_a_store_are_read_as_those_of_a_folder(tmp_path, url):
  row = json.dumps({"text": "One.", "uid": "a"}).encode()
  (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(row))
  (tmp_path / "b.txt").write_text("One.")
  pq.write_table(pa.table({"text": ["One."]}), tmp_path / "c.parquet")
  write_dump(tmp_path / "d.xml.bz2", [page(1, "T", "One is a number.")])
  _write_records(tmp_path / "blocks.tfr", b"One.")
  _write_records(tmp_path / "titles.tfr", b"T")
  for path in tmp_path.iterdir():
    files.upload(path, f"{url}/{path.name}")
  for pattern in ("*.*z*", "b.txt", "*.parquet", "blocks.tfr"):
    here = [
      dataclasses.asdict(d) for d in read_documents(f"{tmp_path}/{pattern}")
    ]
    there = [dataclasses.asdict(d) for d in read_documents(f"{url}/{pattern}")]
    assert here
    for document in here:
      document["origin"] = document["origin"].replace(str(tmp_path), url)
    assert there == here
