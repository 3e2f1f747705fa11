# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/corpus.py."""

import dataclasses
import json

import numpy as np
import pytest

from realm_jax.data import corpus_writer
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.splitting import split_sentences
from realm_jax.data.tokenize import load_tokenizer, train_tokenizer
from tests.conftest import tiny_documents


def _build(path, tokenizer, documents, max_pieces=48):
  return build_corpus(documents, tokenizer, path, max_pieces=max_pieces)


def _documents(*texts, uid=""):
  return [Document(title="T", text=text, uid=uid) for text in texts]


def test_pieces_are_those_of_the_passages_text(tiny_corpus, tiny_tokenizer):
  for row in range(len(tiny_corpus)):
    passage = tiny_corpus.passage(row)
    np.testing.assert_array_equal(
      tiny_corpus.body_ids(row), tiny_tokenizer.encode(passage.text).ids
    )
    np.testing.assert_array_equal(
      tiny_corpus.title_ids(row), tiny_tokenizer.encode(passage.title).ids
    )


def test_no_text_is_lost_and_no_passage_is_too_long(tiny_corpus):
  texts = {document.title: "" for document in tiny_documents()}
  for row in range(len(tiny_corpus)):
    passage = tiny_corpus.passage(row)
    texts[passage.title] = f"{texts[passage.title]} {passage.text}".strip()
  assert texts == {d.title: d.text for d in tiny_documents()}
  assert tiny_corpus.lengths.max() + 3 <= tiny_corpus.max_pieces == 48


def test_lengths_count_title_and_body(tiny_corpus):
  for row in range(len(tiny_corpus)):
    title, body = tiny_corpus.title_ids(row), tiny_corpus.body_ids(row)
    assert tiny_corpus.lengths[row] == len(title) + len(body)
    assert tiny_corpus.title_lengths[row] == len(title)


def test_sentences_start_at_the_pieces_named(tiny_corpus, tiny_tokenizer):
  for row in range(len(tiny_corpus)):
    text = tiny_corpus.passage(row).text
    starts = tiny_corpus.sentence_starts(row)
    characters = tiny_tokenizer.encode(text).starts[starts].tolist()
    assert characters == [start for start, _ in split_sentences(text)]


def test_rows_are_found_by_uid(tiny_corpus):
  for row in range(len(tiny_corpus)):
    assert tiny_corpus.row_of(tiny_corpus.passage(row).uid) == row
  assert tiny_corpus.row_of("country-99") is None


def test_a_strange_uid_with_a_known_hash_is_not_found(tiny_corpus, monkeypatch):
  known = corpus_writer.uid_hash("country-3")
  monkeypatch.setattr("realm_jax.data.corpus.uid_hash", lambda uid: known)
  assert tiny_corpus.row_of("country-3") is not None
  assert tiny_corpus.row_of("another") is None


def test_the_first_passage_keeps_its_documents_uid(tmp_path, tiny_tokenizer):
  text = " ".join(f"In 19{j} it fell." for j in range(10, 30))
  corpus = _build(tmp_path / "c", tiny_tokenizer, _documents(text, uid="a"), 32)
  uids = [passage.uid for passage in corpus.passages(range(len(corpus)))]
  assert uids == ["a", *(f"a#{i}" for i in range(1, len(corpus)))]
  assert len(corpus) > 2


def test_documents_know_their_passages(tmp_path, tiny_tokenizer):
  long = " ".join(f"In 19{j} it fell." for j in range(10, 30))
  documents = [
    *_documents(long, uid="a"),
    *_documents("It rose.", uid="b"),
    *_documents(long + " It rose."),
  ]
  corpus = _build(tmp_path / "c", tiny_tokenizer, documents, 32)
  b = corpus.row_of("b")
  assert b > 1
  assert {corpus.document_rows(row) for row in range(b)} == {range(b)}
  # Passages of documents without a uid are their own documents.
  for row in range(b, len(corpus)):
    assert corpus.document_rows(row) == range(row, row + 1)


def test_hashes_are_equal_where_the_document_tower_reads_the_same(
  tmp_path, tiny_tokenizer
):
  def passage(uid, title, text):
    return Document(uid=uid, title=title, text=text)

  documents = [
    passage("a", "The capital", "of 1901."),
    passage("b", "the CAPITAL", "Of  1901 ."),  # The same pieces.
    passage("c", "The", "capital of 1901."),  # Cut elsewhere.
    passage("d", "The capital", "of 1902."),
  ]
  corpus = _build(tmp_path / "c", tiny_tokenizer, documents)
  a, *others = corpus.passage_hashes.tolist()
  assert others[0] == a
  assert len({a, *others[1:]}) == 3


def test_hashes_under_two_tokenizers_differ(tmp_path, tiny_tokenizer):
  # Fewer pieces for rare words; the ids here are the same.
  texts = [f"{d.title} {d.text}" for d in tiny_documents()]
  other = train_tokenizer(texts, 200, tmp_path / "t")
  one, two = (
    _build(tmp_path / f"c{i}", each, _documents("It fell."))
    for i, each in enumerate([tiny_tokenizer, other])
  )
  np.testing.assert_array_equal(one.tokens, two.tokens)
  assert one.passage_hashes[0] != two.passage_hashes[0]


def test_a_corpus_brings_its_tokenizer(tiny_corpus):
  tiny_corpus.check_tokenizer(load_tokenizer(tiny_corpus.directory))


@pytest.mark.parametrize(
  "change",
  [
    {"text": "It fell. "},
    {"title": "t"},
    {"uid": "b"},
    {"text": "IT fell."},  # The same pieces, but not the same text.
  ],
)
def test_the_fingerprint_tells_contents_apart(tmp_path, tiny_tokenizer, change):
  document = Document(title="T", text="It fell.", uid="a")
  other = dataclasses.replace(document, **change)
  prints = [
    _build(tmp_path / str(i), tiny_tokenizer, [each]).fingerprint
    for i, each in enumerate([document, document, other])
  ]
  assert prints[0] == prints[1]
  # White space at the end is in no passage.
  assert (prints[0] == prints[2]) == (change == {"text": "It fell. "})


def test_another_tokenizer_is_refused_by_both_names(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  tiny_corpus.check_tokenizer(tiny_tokenizer)
  other = train_tokenizer(["Some other text."] * 3, 100, tmp_path)
  with pytest.raises(ValueError) as caught:
    tiny_corpus.check_tokenizer(other)
  assert other.fingerprint[:12] in str(caught.value)
  assert tiny_corpus.tokenizer_fingerprint[:12] in str(caught.value)


def test_another_format_is_refused(tmp_path, tiny_tokenizer):
  _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  path = tmp_path / "c" / "MANIFEST.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
  with pytest.raises(ValueError, match=r"format 99, .* reads 2"):
    PassageCorpus.open(tmp_path / "c")


def test_a_damaged_file_is_named(tmp_path, tiny_tokenizer):
  _build(tmp_path / "c", tiny_tokenizer, tiny_documents())
  path = tmp_path / "c" / "tokens.bin"
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=f"{path} is damaged.*repare it again"):
    PassageCorpus.open(tmp_path / "c")
