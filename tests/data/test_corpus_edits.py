# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/corpus_edits.py."""

import dataclasses
import gzip
import json

import numpy as np
import pytest

from realm_jax.data import corpus_edits
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.corpus_edits import (
  apply_edits,
  read_edits,
  unchanged_rows,
)
from realm_jax.data.records import Document
from realm_jax.data.tokenize import Tokenizer, train_tokenizer
from tests.conftest import tiny_documents

LONG = " ".join(f"In 19{year} the harvest fell." for year in range(10, 40))


def _write(path, edits):
  lines = "".join(json.dumps(edit) + "\n" for edit in edits)
  with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as to:
    to.write(lines)
  return path


def _edit(corpus, edits, directory):
  """Returns the corpus with these edits, made in `directory`."""
  path = _write(directory / "edits.jsonl", edits)
  edited = apply_edits(corpus, read_edits(corpus, path), directory / "edited")
  path.unlink()
  return edited


def _text(uid, text, title="T"):
  return {"uid": uid, "title": title, "text": text}


def _remove(uid):
  return {"uid": uid, "remove": True}


def _edit_documents(documents, edits):
  """The slow reference: edits of a list, in place, what is new at the end."""
  found = {document.uid: document for document in documents}
  for edit in edits:
    if "remove" in edit:
      del found[edit["uid"]]
    else:
      found[edit["uid"]] = Document(**edit)
  return list(found.values())


def test_passages_are_found_by_uid_in_another_corpus(tiny_corpus, tmp_path):
  edits = [
    _remove("country-0"),
    _text("country-3", "Other words.", title="Other"),
    _text("country-new", "More words."),
  ]
  edited = _edit(tiny_corpus, edits, tmp_path)
  rows = np.array([[-1, 0, 5], [50, 7, 0]])

  for one, other in ((tiny_corpus, edited), (edited, tiny_corpus)):
    wanted = [
      -1 if row < 0 else other.row_of(one.passage(row).uid)
      for row in rows.ravel().tolist()
    ]
    found = one.rows_in(other, rows)
    assert found.ravel().tolist() == [-1 if w is None else w for w in wanted]
    np.testing.assert_array_equal(one.rows_in(one, rows), rows)
  assert tiny_corpus.rows_in(edited, rows)[0].tolist()[:2] == [-1, -1]


def _contents(corpus):
  """Returns all that a corpus can be asked, row by row."""
  return [
    (
      corpus.passage(row),
      corpus.title_ids(row).tolist(),
      corpus.body_ids(row).tolist(),
      corpus.sentence_starts(row).tolist(),
      corpus.document_rows(row),
      corpus.row_of(corpus.passage(row).uid),
      int(corpus.passage_hashes[row]),
    )
    for row in range(len(corpus))
  ]


EDITS = {
  "added": [_text("new", LONG), _text("newer", "It rose.")],
  "longer": [_text("country-3", LONG), _text("country-1", LONG)],
  "shorter": [_text("country-5", "It fell."), _text("country-39", "It rose.")],
  "removed": [_remove(f"country-{i}") for i in (0, 5, 39)],
  "neighbours": [
    _remove("country-11"),
    _text("country-10", LONG),
    _text("country-12", "It fell."),
  ],
  "everything": [
    _text(f"country-{i}", "It fell.") for i in reversed(range(40))
  ],
}
EDITS["mixed"] = [*EDITS["added"], *EDITS["removed"], *EDITS["longer"]]


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
def test_it_is_the_corpus_of_the_edited_documents(
  tmp_path, tiny_corpus, tiny_tokenizer, edits, monkeypatch
):
  monkeypatch.setattr("realm_jax.data.corpus._ROWS_AT_ONCE", 3)
  monkeypatch.setattr("realm_jax.data.passages._DOCUMENTS_AT_ONCE", 2)

  edited = _edit(tiny_corpus, edits, tmp_path)

  documents = _edit_documents(tiny_documents(), edits)
  built = build_corpus(documents, tiny_tokenizer, tmp_path / "built", 48)
  assert edited.fingerprint == built.fingerprint != tiny_corpus.fingerprint
  assert _contents(edited) == _contents(built)
  assert edited.max_pieces == built.max_pieces
  edited.check_tokenizer(tiny_tokenizer)


def test_editing_back_restores_the_fingerprint(tmp_path, tiny_corpus):
  before = {document.uid: document for document in tiny_documents()}
  there = [_text("country-5", LONG), _text("new", LONG)]
  back = [
    _remove("new"),
    _text("country-5", before["country-5"].text, before["country-5"].title),
  ]
  for name in ("there", "back"):
    (tmp_path / name).mkdir()

  edited = _edit(tiny_corpus, there, tmp_path / "there")
  restored = _edit(edited, back, tmp_path / "back")

  assert restored.fingerprint == tiny_corpus.fingerprint
  assert _contents(restored) == _contents(tiny_corpus)


def test_the_manifest_names_the_corpus_it_was_edited_from(
  tmp_path, tiny_corpus
):
  edited = _edit(tiny_corpus, [_remove("country-1")], tmp_path)
  manifest = json.loads((edited.directory / "MANIFEST.json").read_text())
  assert manifest["edited_from"] == tiny_corpus.fingerprint


def test_only_the_edited_documents_are_tokenised(
  tmp_path, tiny_corpus, monkeypatch
):
  seen = []
  encode_batch = Tokenizer.encode_batch

  def spy(self, texts):
    seen.extend(texts)
    return encode_batch(self, texts)

  monkeypatch.setattr(Tokenizer, "encode_batch", spy)
  edits = [_text("country-2", LONG), _remove("country-9"), _text("n", "It.")]
  _edit(tiny_corpus, edits, tmp_path)
  assert sorted(seen) == sorted(["T", LONG, "T", "It."])


def test_edits_may_be_gzipped(tmp_path, tiny_corpus):
  path = _write(tmp_path / "edits.jsonl.gz", [_remove("country-4")])
  edits = read_edits(tiny_corpus, path)
  assert edits.removed == {tiny_corpus.row_of("country-4")}


@pytest.mark.parametrize(
  ("second", "message"),
  [
    (_remove("a"), r"edits.jsonl:2: cannot remove 'a': .*no document"),
    (_remove("country-7"), r":2: the uid 'country-7' is edited at .*:1"),
    (_text("country-7", "x"), r":2: the uid 'country-7' is edited at .*:1"),
    (_remove("country-5#1"), r":2: .*within the document 'country-5'"),
    (_text("country-5#1", "x"), r":2: .*within the document 'country-5'"),
    (_text("", "x"), r":2: an edit needs the 'uid'"),
    ({"text": "x"}, r":2: an edit needs the 'uid'"),
    ({"uid": "a"}, r":2: 'text' must be a string, got None|has no text"),
    (_text("country-1", " \n"), r":2: 'country-1' has no text"),
    ({"uid": "country-1", "remove": False}, r":2: .*'remove': False"),
    (_remove("country-1") | {"text": "x"}, r":2: an edit has either 'text' or"),
    (_text("a", 3), r":2: 'text' must be a string, got 3"),
  ],
)
def test_a_bad_edit_is_named_by_its_line(
  tmp_path, tiny_corpus, second, message
):
  edits = [_text("country-7", "It fell."), second]
  with pytest.raises(ValueError, match=message):
    read_edits(tiny_corpus, _write(tmp_path / "edits.jsonl", edits))


@pytest.mark.parametrize(
  ("edits", "message"),
  [
    (
      [_text("a", "\x01")],  # A control character: BERT leaves it out.
      r"edits.jsonl:1: the text of 'a' has no word piece",
    ),
    (
      [_remove(f"country-{i}") for i in range(40)],
      "removes all .* and a corpus has at least one",
    ),
    (
      [_text("country-5", LONG), _text("country-5#3", "It fell.")],
      "edits.jsonl:2: the uid 'country-5#3' occurs twice",
    ),
  ],
)
def test_edits_that_make_no_corpus_leave_nothing(
  tmp_path, tiny_corpus, edits, message
):
  path = _write(tmp_path / "edits.jsonl", edits)
  with pytest.raises(ValueError, match=message):
    apply_edits(tiny_corpus, read_edits(tiny_corpus, path), tmp_path / "c")
  assert list(tmp_path.iterdir()) == [path]


def test_a_number_sign_in_a_uid_is_no_part_of_a_neighbour(
  tmp_path, tiny_tokenizer
):
  short = Document(uid="a", title="T", text="It fell.")
  neighbour = dataclasses.replace(short, uid="a#1", text="It rose.")
  corpus = build_corpus([short, neighbour], tiny_tokenizer, tmp_path / "c", 48)

  edited = _edit(corpus, [_text("a", "It rose.")], tmp_path)
  assert edited.passages([0, 1]) == [
    dataclasses.replace(corpus.passage(0), text="It rose."),
    corpus.passage(1),
  ]
  with pytest.raises(ValueError, match="the uid 'a#1' of row 1 would occur"):
    (tmp_path / "longer").mkdir()
    _edit(corpus, [_text("a", LONG)], tmp_path / "longer")


def test_without_uids_of_the_source_each_passage_is_edited_by_its_own(
  tmp_path, tiny_tokenizer
):
  documents = [Document(title="T", text=LONG)]
  corpus = build_corpus(documents, tiny_tokenizer, tmp_path / "c", 48)
  passages = corpus.passages(range(len(corpus)))
  assert len(passages) > 3

  edits = [_text(passages[1].uid, "It rose."), _remove(passages[2].uid)]
  edited = _edit(corpus, edits, tmp_path)

  passages[1] = dataclasses.replace(passages[1], text="It rose.")
  del passages[2]
  assert edited.passages(range(len(edited))) == passages


def test_another_tokenizer_in_the_corpus_directory_is_refused(
  tmp_path, tiny_tokenizer
):
  corpus = build_corpus(tiny_documents(), tiny_tokenizer, tmp_path / "c", 48)
  train_tokenizer([LONG] * 3, 100, corpus.directory)
  with pytest.raises(ValueError, match="was made with the tokenizer"):
    _edit(corpus, [_text("a", "It fell.")], tmp_path)


def test_unchanged_passages_are_found_wherever_they_stand(
  tmp_path, tiny_corpus
):
  text = tiny_corpus.passage(0).text
  edits = [
    _remove("country-0"),
    _text("again", text, tiny_corpus.passage(0).title),
    _text("country-5", LONG),
  ]
  edited = _edit(tiny_corpus, edits, tmp_path)

  rows = unchanged_rows(tiny_corpus.passage_hashes, edited.passage_hashes)

  for new, old in enumerate(rows.tolist()):
    uid = edited.passage(new).uid
    if uid.partition("#")[0] == "country-5":
      assert old == -1
    else:
      assert old == (0 if uid == "again" else tiny_corpus.row_of(uid))


@pytest.mark.parametrize(("num_old", "num_new"), [(0, 5), (5, 0), (40, 60)])
def test_unchanged_rows_are_those_of_a_dict(num_old, num_new, monkeypatch):
  monkeypatch.setattr(corpus_edits, "_HASHES_AT_ONCE", 7)
  rng = np.random.default_rng(0)
  high = np.uint64(1) << np.uint64(63)
  old = rng.integers(0, 30, num_old, np.uint64) + high
  new = rng.integers(0, 30, num_new, np.uint64) + high
  first = {}
  for row, value in enumerate(old.tolist()):
    first.setdefault(value, row)

  found = unchanged_rows(old, new)

  assert found.tolist() == [first.get(value, -1) for value in new.tolist()]


def test_what_was_written_opens_anew(tmp_path, tiny_corpus):
  edited = _edit(tiny_corpus, [_remove("country-1")], tmp_path)
  opened = PassageCorpus.open(tmp_path / "edited")
  assert _contents(opened) == _contents(edited)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["edited"]
