# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.gold import holding_rows, named_rows
from realm_jax.data.records import Document, Question


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_tokenizer):
  documents = [
    Document(
      uid="7",
      title="long",
      text=" ".join(f"the year is {1990 + i} now." for i in range(12)),
    ),
    Document(uid="8", title="short", text="the year is 1995 too."),
  ]
  path = tmp_path_factory.mktemp("gold") / "corpus"
  return build_corpus(documents, tiny_tokenizer, path, max_pieces=40)


def _uids(corpus, **question):
  asked = Question(text="?", **question)
  named = named_rows(asked.passage_uid, corpus, "q.jsonl:3")
  found = holding_rows(asked, named, corpus)
  return [passage.uid for passage in corpus.passages(found)]


def test_the_uid_of_a_document_names_all_its_parts_and_a_part_s_itself(corpus):
  def titles(uid):
    rows = named_rows(uid, corpus, "q.jsonl:3")
    return [passage.title for passage in corpus.passages(rows)]

  assert len(titles("7")) == len(corpus) - 1 and set(titles("7")) == {"long"}
  assert list(named_rows("7#1", corpus, "")) == [corpus.row_of("7#1")]
  assert titles("8") == ["short"]
  assert titles("") == []


def test_a_cut_document_is_the_parts_that_hold_an_answer(corpus):
  parts = [p for p in corpus.passages(range(len(corpus))) if p.title == "long"]
  assert len(parts) > 2
  for year in ("1990", "1995", "2001"):
    expected = [part.uid for part in parts if year in part.text]
    assert _uids(corpus, answers=(year,), passage_uid="7") == expected
    assert _uids(corpus, patterns=(year,), passage_uid="7") == expected
  several = _uids(corpus, answers=("now",), passage_uid="7")
  assert several == [part.uid for part in parts]


def test_a_document_without_an_answer_is_its_first_part(corpus):
  assert _uids(corpus, answers=("none",), passage_uid="7") == ["7"]


def test_a_part_or_a_whole_document_is_itself(corpus):
  assert _uids(corpus, answers=("1990",), passage_uid="7#1") == ["7#1"]
  assert _uids(corpus, answers=("1990",), passage_uid="8") == ["8"]


def test_a_question_may_name_none(corpus):
  assert _uids(corpus, answers=("1990",)) == []


def test_an_unknown_passage_is_named_with_file_and_line(corpus):
  with pytest.raises(ValueError, match=r"q\.jsonl:3: 'passage_uid' '9' is not"):
    _uids(corpus, answers=("a",), passage_uid="9")
