# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/corpus_build.py and corpus_writer.py."""

import errno
import hashlib
import json

import numpy as np
import pytest

from realm_jax.data import corpus_writer
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from tests.conftest import tiny_documents


def _build(path, tokenizer, documents, max_pieces=48):
  return build_corpus(documents, tokenizer, path, max_pieces=max_pieces)


def _documents(*texts, uid=""):
  return [Document(title="T", text=text, uid=uid) for text in texts]


def test_without_a_uid_it_is_the_digest_and_repetitions_go(
  tmp_path, tiny_tokenizer
):
  corpus = _build(
    tmp_path / "c", tiny_tokenizer, _documents("It fell.", "", "It fell.")
  )
  assert len(corpus) == 1
  assert corpus.passage(0).uid == hashlib.sha1(b"T\nIt fell.").hexdigest()
  manifest = json.loads((tmp_path / "c" / "MANIFEST.json").read_text())
  assert manifest["num_documents"] == 3
  assert manifest["num_empty"] == 1
  assert manifest["num_repeated"] == 1


def test_a_long_title_leaves_room_for_the_body(tmp_path, tiny_tokenizer):
  document = Document(title="capital " * 30, text="It fell in 1901.")
  corpus = _build(tmp_path / "c", tiny_tokenizer, [document], 17)
  assert len(corpus.title_ids(0)) == 7
  assert corpus.lengths.max() <= 14


def test_batches_of_documents_change_nothing(
  tmp_path, tiny_corpus, tiny_tokenizer, monkeypatch
):
  monkeypatch.setattr("realm_jax.data.passages._DOCUMENTS_AT_ONCE", 3)
  seen = []
  corpus = build_corpus(
    iter(tiny_documents()), tiny_tokenizer, tmp_path / "c", 48, seen.append
  )
  assert corpus.fingerprint == tiny_corpus.fingerprint
  assert seen[-1] == len(corpus) and len(seen) == 14


def test_a_vocabulary_above_16_bits_is_kept(
  tmp_path, tiny_tokenizer, monkeypatch
):
  monkeypatch.setattr(tiny_tokenizer, "vocab_size", 70_000)
  writer = corpus_writer.CorpusWriter(tmp_path / "c", tiny_tokenizer, 8)
  ids = np.array([69_999, 5], np.int32)
  passage = corpus_writer.Passage(uid="a", title="", text="x")
  none = np.zeros(0, np.int32)
  with writer:
    writer.append(
      writer.format.store(
        passage, none, ids, np.zeros(1, np.int32), starts_document=True
      )
    )
    writer.finish({})
  corpus = PassageCorpus.open(tmp_path / "c")
  np.testing.assert_array_equal(corpus.body_ids(0), ids)


def test_a_uid_that_occurs_twice_is_named(tmp_path, tiny_tokenizer):
  documents = [
    Document(title="", text="It fell.", uid="a", origin="x.jsonl:1"),
    Document(title="", text="It rose.", uid="a", origin="x.jsonl:2"),
  ]
  with pytest.raises(ValueError, match=r"x\.jsonl:2: the uid 'a' occurs"):
    _build(tmp_path / "c", tiny_tokenizer, documents)
  assert list(tmp_path.iterdir()) == []


def test_a_source_without_text_is_an_error(tmp_path, tiny_tokenizer):
  with pytest.raises(ValueError, match="no passage: 2 documents, of which 2"):
    _build(tmp_path / "c", tiny_tokenizer, _documents("", " "))
  assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_leaves_nothing(tmp_path, tiny_tokenizer):
  def broken():
    yield from tiny_documents()
    raise ValueError("x.jsonl:41: not a line of JSON")

  with pytest.raises(ValueError, match="41"):
    _build(tmp_path / "c", tiny_tokenizer, broken())
  assert list(tmp_path.iterdir()) == []


class _FullDisk:
  def __init__(self, file, room):
    self._file, self._room = file, room

  def write(self, data):
    self._room -= len(data)
    if self._room < 0:
      raise OSError(errno.ENOSPC, "No space left on device")
    return self._file.write(data)

  def __getattr__(self, name):
    return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_is_reported_and_nothing_left(
  tmp_path, tiny_tokenizer, monkeypatch, room
):
  plain = corpus_writer.CorpusWriter._open

  def open_full(self, name):
    return _FullDisk(plain(self, name), room)

  monkeypatch.setattr(corpus_writer.CorpusWriter, "_open", open_full)
  with pytest.raises(OSError, match=r"cannot write the corpus .*/c: .*space"):
    _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_end_is_reported_too(
  tmp_path, tiny_tokenizer, monkeypatch
):
  def save(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(np, "save", save)
  with pytest.raises(OSError) as caught:
    _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  assert caught.value.errno == errno.ENOSPC
  assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_no_corpus_and_no_hindrance(
  tmp_path, tiny_tokenizer
):
  draft = tmp_path / ".c.partial"
  draft.mkdir()
  (draft / "tokens.bin").write_bytes(b"half")
  with pytest.raises(FileNotFoundError, match="has no MANIFEST"):
    PassageCorpus.open(draft)
  _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_corpus_is_final(tmp_path, tiny_tokenizer):
  _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  with pytest.raises(FileExistsError, match="a corpus is final"):
    _build(tmp_path / "c", tiny_tokenizer, tiny_documents())


def test_max_pieces_has_bounds(tmp_path, tiny_tokenizer):
  with pytest.raises(ValueError, match=r"8\.\.65535, got 7"):
    _build(tmp_path / "c", tiny_tokenizer, tiny_documents(), 7)
