# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document, Passage, Question
from realm_jax.eval import retrieval


class _Texts(PassageCorpus):
  """A corpus of one-line passages that counts how often each is read."""

  def __init__(self, *texts):
    self.texts = texts
    self.reads = [0] * len(texts)

  def passage(self, row):
    self.reads[row] += 1
    return Passage(uid=str(row), title="", text=self.texts[row])


def _hits(text, *answers, patterns=()):
  question = Question(text="?", answers=answers, patterns=patterns)
  found = np.zeros((1, 1), np.int32)
  return bool(retrieval.answer_hits(found, _Texts(text), [question])[0, 0])


def test_an_answer_counts_as_whole_words_only():
  assert _hits("The capital is Rome.", "rome")
  assert not _hits("The capital is Romeo.", "Rome")
  assert _hits("in N'Djamena, Chad", "paris", "N'Djamena")


def test_marks_part_words_and_are_none():
  assert _hits("Newton's laws, 1990\u20131995", "newton")
  assert _hits("1990\u20131995", "1990")
  assert _hits("the \u201cKhitan\u201d-ruled north", "Khitan")
  assert _hits("about $5 million\u2014or more", "5 million")
  assert _hits("the U.S. Army", "u.s.")
  assert not _hits("It told us nothing.", "U.S.")
  assert not _hits("45 men", "4.5")


def test_accents_count_however_they_are_encoded():
  assert _hits("Jose\u0301 left", "Jos\u00e9")
  assert not _hits("Jose left", "Jos\u00e9") and not _hits("Jose\u0301", "Jose")


def test_an_answer_without_a_word_or_mark_is_in_no_passage():
  assert not _hits("the end", " \u200b")


def test_a_pattern_is_looked_for_in_the_text_as_it_is():
  assert _hits("Born in Sept. 1999", patterns=("19\\d\\d",))
  assert _hits("ROMEO", patterns=("paris", "rome"))
  assert not _hits("U.S.A.", patterns=("usa",))


def test_every_passage_is_read_once_and_an_empty_place_is_no_hit():
  corpus = _Texts("Rome", "Lima", "Oslo")
  found = np.array([[0, 1, -1], [1, 0, -1], [1, 2, 0]], np.int32)
  questions = [Question(text="?", answers=(a,)) for a in ("Rome", "x", "Oslo")]
  hits = retrieval.answer_hits(found, corpus, questions)
  assert hits.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
  assert corpus.reads == [1, 1, 1]


def test_hits_equal_those_of_one_question_and_passage_at_a_time():
  rng = np.random.default_rng(0)
  words = np.array(["Rome", "the", "Lima", "new", "york", "1999", "café"])
  texts = [" ".join(rng.choice(words, 4)) for _ in range(40)]
  questions = [
    Question(text="?", answers=(" ".join(rng.choice(words, 2)),))
    if i % 2
    else Question(text="?", patterns=(str(rng.choice(words)),))
    for i in range(30)
  ]
  found = rng.integers(-1, 40, (30, 12)).astype(np.int32)
  hits = retrieval.answer_hits(found, _Texts(*texts), questions)
  slow = [
    [
      row >= 0 and _hits(texts[row], *q.answers, patterns=q.patterns)
      for row in rows
    ]
    for q, rows in zip(questions, found.tolist(), strict=True)
  ]
  assert hits.tolist() == slow


@pytest.fixture(scope="module")
def cut(tmp_path_factory, tiny_tokenizer):
  """Documents of one passage and of several, in turns."""
  documents = [
    Document(
      uid=str(i),
      title="years",
      text=" ".join(
        f"the year is {1900 + j} now." for j in range(9 * (i % 2) + 1)
      ),
    )
    for i in range(8)
  ]
  path = tmp_path_factory.mktemp("cut") / "corpus"
  return build_corpus(documents, tiny_tokenizer, path, max_pieces=40)


def test_the_parts_of_a_document_take_one_place_of_those_before_another(cut):
  rows = cut.document_rows
  one, two = (rows(cut.row_of(uid)) for uid in "13")
  single = rows(cut.row_of("4"))
  assert len(one) > 2 and len(two) > 2 and len(single) == 1
  found = np.array(
    [[one[1], one[0], one[2], two[1], single[0], -1]] * 5, np.int32
  )
  part = range(two[1], two[1] + 1)
  named = [one, two, single, part, range(0)]
  # A part is counted among parts, a document among documents.
  assert retrieval.named_places(found, named, cut).tolist() == [0, 1, 2, 3, 6]


def test_places_equal_those_of_a_list_of_documents(cut):
  rng = np.random.default_rng(0)
  found = np.stack([rng.permutation(len(cut))[:9] for _ in range(200)])
  named = [
    cut.document_rows(int(row)) for row in rng.integers(0, len(cut), 200)
  ]
  slow = []
  for rows, wanted in zip(found.tolist(), named, strict=True):
    documents = list(dict.fromkeys(map(cut.document_rows, rows)))
    slow.append(documents.index(wanted) if wanted in documents else 9)
  places = retrieval.named_places(found.astype(np.int32), named, cut)
  assert places.tolist() == slow


def test_as_many_are_searched_for_as_that_many_documents_have_parts(
  cut, monkeypatch
):
  parts = -(-len(cut) // 8)
  assert retrieval.search_depth(cut) == len(cut)
  monkeypatch.setattr(retrieval, "RECALL_AT", (1, 3))
  assert retrieval.search_depth(cut) == 3 * parts


def test_recall_by_hand():
  places = np.array([0, 4, 5, 20])
  none = np.full(4, 20)
  named = np.array([True, False, True, True])

  columns = retrieval.recall_columns(places, none, named, 20)

  assert {k: c.tolist() for k, c in columns.items() if "answer" in k} == {
    "answer_recall_at_1": [1, 0, 0, 0],
    "answer_recall_at_5": [1, 1, 0, 0],
    "answer_recall_at_20": [1, 1, 1, 0],
  }
  for depth in (1, 5, 20):  # A question that names no passage does not count.
    by_passage = columns[f"passage_recall_at_{depth}"]
    assert np.isnan(by_passage).tolist() == (~named).tolist()
    assert np.nansum(by_passage) == 0


def test_first_hits_by_hand():
  hits = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
  assert retrieval.first_hits(hits).tolist() == [1, 0, 3]


@pytest.mark.parametrize("depth", [1, 5, 100])
def test_recall_is_the_share_with_a_hit_so_far(depth):
  hits = np.random.default_rng(0).random((50, 100)) < 0.02
  places = retrieval.first_hits(hits)
  columns = retrieval.recall_columns(places, places, np.ones(50, bool), 100)
  expected = hits[:, :depth].any(axis=1)
  for kind in ("answer", "passage"):
    column = columns[f"{kind}_recall_at_{depth}"]
    assert column.tolist() == expected.tolist()
