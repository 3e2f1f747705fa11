# SPDX-License-Identifier: Apache-2.0
import pytest

from experiments.factbook_demo import edits as edits_lib


@pytest.fixture(scope="module")
def edits(placed, corpus):
  return edits_lib.choose_edits(placed, corpus)


def test_edits_are_a_fixed_draw_of_test_facts(edits, placed, corpus):
  assert len(edits) == 20
  assert all(edit.placed.fact.split == "test" for edit in edits)
  assert len({edit.placed.fact.document_uid for edit in edits}) == 20
  assert edits == edits_lib.choose_edits(placed, corpus)
  assert edits != edits_lib.choose_edits(placed, corpus, seed=1)


def test_each_edit_replaces_exactly_one_value(edits, documents, corpus):
  texts = {document.uid: document.text for document in documents}
  edited = edits_lib.edited_documents(documents, edits)

  for edit, document in zip(edits, edited, strict=True):
    fact = edit.placed.fact
    assert document.uid == fact.document_uid
    before, after = texts[document.uid], document.text
    passage = corpus.passage(corpus.row_of(edit.placed.passage_uid)).text
    assert passage.count(fact.value) == 1
    assert edit.value not in passage
    at = before.index(fact.evidence) + fact.evidence.index(fact.value)
    rest = at + len(fact.value)
    assert after == before[:at] + edit.value + before[rest:]


def test_the_same_questions_are_asked_with_the_other_answers(edits, placed):
  before = edits_lib.questions(edits, after=False)
  after = edits_lib.questions(edits, after=True)
  values = {(one.fact.relation, one.fact.value) for one in placed}

  for edit, old, new in zip(edits, before, after, strict=True):
    assert old["question"] == new["question"]
    assert old["answers"] == [edit.placed.fact.value]
    assert new["answers"] == [edit.value] != old["answers"]
    assert (edit.placed.fact.relation, edit.value) in values


def test_too_few_editable_facts_are_an_error(placed, corpus):
  with pytest.raises(ValueError, match="20 edits were asked for, and only"):
    edits_lib.choose_edits(placed[:30], corpus)
