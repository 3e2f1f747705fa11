# SPDX-License-Identifier: Apache-2.0
import itertools
import json

import jax
import numpy as np
import pytest

from realm_jax.config import DataConfig, DprConfig, LengthConfig, RunConfig
from realm_jax.data import collate, pairs
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.qa import Questions
from realm_jax.data.records import Document, Question


@pytest.fixture
def ask(tmp_path):
  """uids -> a file of a question for each; None for one that names none."""

  def write(uids):
    path = tmp_path / "questions.jsonl"
    with path.open("w") as file:
      for number, uid in enumerate(uids):
        named = {} if uid is None else {"passage_uid": uid}
        line = {"question": f"Who {number}?", "answers": ["he"], **named}
        file.write(json.dumps(line) + "\n")
    return str(path)

  return write


def run_over(path, **dpr):
  return RunConfig(
    stage="dpr",
    batch_size=2,
    data=DataConfig(train=path),
    lengths=LengthConfig(query=16, passage=48, joint=72),
    dpr=DprConfig(**dpr),
  )


QUERY_LENGTHS = np.array([4, 5, 6])


def stacked(*rows):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def rows_over(path, corpus, tokenizer):
  return pairs.pair_rows(run_over(path), tokenizer, corpus, Questions(path))


def test_a_pair_is_a_question_and_the_passage_that_it_names(
  ask, tiny_corpus, tiny_tokenizer
):
  path = ask(["country-3", None, "country-7"])
  rows = rows_over(path, tiny_corpus, tiny_tokenizer)
  for epoch in ([0, 1], [2, 3]):
    found = {
      int(rows[i]["index"][0]): (
        int(rows[i]["passage_row"]),
        tiny_tokenizer.decode(rows[i]["query"]["ids"][0, 1:3]),
      )
      for i in epoch
    }
    assert found == {
      0: (tiny_corpus.row_of("country-3"), "0"),
      2: (tiny_corpus.row_of("country-7"), "2"),
    }


def test_questions_of_a_passage_are_asked_together(
  ask, tiny_corpus, tiny_tokenizer, unpacked
):
  """Each once an epoch, and again only where an example lacks one."""
  uids = ["country-3"] * 5 + ["country-7"] * 2 + ["country-1"]
  path = ask(uids)
  run = run_over(path, questions=2)
  rows = pairs.pair_rows(run, tiny_tokenizer, tiny_corpus, Questions(path))
  for epoch in (range(5), range(5, 10)):
    asked = [rows[i]["index"].tolist() for i in epoch]
    for example, place in zip(asked, epoch, strict=True):
      named = {tiny_corpus.row_of(uids[i]) for i in example}
      assert named == {int(rows[place]["passage_row"])}
    counts = np.bincount(np.ravel(asked))
    assert counts[:5].tolist().count(1) == 4
    assert counts.sum() == 10
    assert counts[5:].tolist() == [1, 1, 2]
  assert [rows[i]["index"].tolist() for i in range(5)] != asked

  collator = pairs.PairCollator(run, tiny_corpus, tiny_tokenizer, QUERY_LENGTHS)
  examples = stacked(rows[0], rows[1])
  nothing = np.zeros((2, 0), np.int32)
  batch = collator(examples, nothing, tiny_corpus)
  found = unpacked(batch["query"], "ids")
  for row, query in zip(
    found, [*rows[0]["query"]["ids"], *rows[1]["query"]["ids"]], strict=True
  ):
    np.testing.assert_array_equal(row, query[: len(row)])
  assert len(batch["passage"]["order"]) == 2


def test_passages_of_one_title_come_side_by_side(ask, tiny_tokenizer, tmp_path):
  documents = [
    Document(title=f"Title {i // 5}", text=f"Text {i}.", uid=f"d{i}")
    for i in range(15)
  ]
  corpus = build_corpus(
    documents, tiny_tokenizer, tmp_path / "titles", max_pieces=48
  )
  path = ask([document.uid for document in documents])
  run = run_over(path, same_title=3)
  rows = pairs.pair_rows(run, tiny_tokenizer, corpus, Questions(path))
  order = [int(rows[i]["passage_row"]) for i in range(30)]
  for epoch in (order[:15], order[15:]):
    assert sorted(epoch) == list(range(15))
    titles = [corpus.passage(row).title for row in epoch]
    runs = [len(list(group)) for _, group in itertools.groupby(titles)]
    # Of five passages of a title, three come together and two.
    assert len(runs) <= 6
    assert set(runs) <= {2, 3, 4, 5, 6}
  assert order[:15] != order[15:]


def test_negatives_are_the_best_passages_found_that_answer_nothing(tiny_corpus):
  gold = tiny_corpus.row_of("country-3")
  names = [tiny_corpus.passage(row).title for row in range(len(tiny_corpus))]
  question = Question(text="?", answers=(f"capital of {names[5]}",))
  holding = [
    row
    for row in range(len(tiny_corpus))
    if question.answers[0] in tiny_corpus.passage(row).text
  ]
  found = np.array([[gold, holding[0], 9, 2, 7]], np.int32)

  def choose(count):
    return pairs.wrong_passages(
      [question], gold, found, tiny_corpus, count
    ).tolist()

  assert choose(1) == [9]
  assert choose(2) == [9, 2]
  assert choose(4) == [9, 2, 7, collate.NULL_ROW]


def test_negatives_of_several_questions_answer_none_and_go_by_rank(tiny_corpus):
  texts = [tiny_corpus.passage(row).text for row in (5, 6)]
  questions = [Question(text="?", answers=(text,)) for text in texts]
  found = np.array([[6, 2, 9, 5], [8, 3, 2, 1]], np.int32)
  wrong = pairs.wrong_passages(questions, 3, found, tiny_corpus, 5)
  assert wrong.tolist() == [8, 2, 9, 1, collate.NULL_ROW]


def test_a_batch_has_each_question_s_own_passage_and_then_its_negatives(
  ask, tiny_corpus, tiny_tokenizer, unpacked
):
  path = ask(["country-3", "country-7"])
  rows = rows_over(path, tiny_corpus, tiny_tokenizer)
  examples = {
    "query": stacked(rows[0]["query"], rows[1]["query"]),
    "passage_row": np.array([3, 7], np.int32),
  }
  collator = pairs.PairCollator(
    run_over(path, negatives=2), tiny_corpus, tiny_tokenizer, QUERY_LENGTHS
  )
  null = collate.NULL_ROW
  negatives = np.array([[5, 6], [8, null]], np.int32)
  batch = collator(examples, negatives, tiny_corpus)
  # What is no negative passes for a copy of the own passage.
  assert batch["passage_row"].tolist() == [3, 5, 6, 7, 8, 7]
  ids = unpacked(batch["passage"], "ids")
  for row, found in zip([3, 5, 6, 7, 8, null], ids, strict=True):
    expected = collate.passage_rows(
      tiny_corpus, tiny_tokenizer, np.array([row]), 48
    )
    np.testing.assert_array_equal(found, expected["ids"][expected["mask"]])
  shapes = [jax.tree.map(np.shape, each) for each in collator.shapes()]
  assert jax.tree.map(np.shape, batch) in shapes


def test_negatives_of_another_corpus_are_told_by_their_uid(
  ask, tiny_corpus, tiny_tokenizer, tmp_path
):
  document = Document(title="New", text="It is new.", uid="new")
  same = tiny_corpus.passage(5)
  other = build_corpus(
    [document, Document(title=same.title, text=same.text, uid=same.uid)],
    tiny_tokenizer,
    tmp_path / "other",
    max_pieces=48,
  )
  path = ask(["country-3", "country-7"])
  collator = pairs.PairCollator(
    run_over(path, negatives=1), tiny_corpus, tiny_tokenizer, QUERY_LENGTHS
  )
  query = rows_over(path, tiny_corpus, tiny_tokenizer)[0]["query"]
  examples = {
    "query": stacked(query, query),
    "passage_row": np.array([3, 7], np.int32),
  }
  batch = collator(examples, np.array([[0], [1]], np.int32), other)
  assert batch["passage_row"].tolist() == [3, -1, 7, 5]


def test_gold_rows_are_where_the_corpus_has_the_passages(ask, tiny_corpus):
  questions = Questions(ask(["country-3", None]))
  assert pairs.gold_rows(questions, tiny_corpus).tolist() == [
    tiny_corpus.row_of("country-3"),
    collate.NULL_ROW,
  ]


def test_a_passage_that_is_not_there_is_named(ask, tiny_corpus, tiny_tokenizer):
  path = ask(["country-3", "atlantis"])
  with pytest.raises(ValueError, match=r"jsonl:2: .*'atlantis' is not in"):
    rows_over(path, tiny_corpus, tiny_tokenizer)


def test_questions_without_any_passage_are_refused(
  ask, tiny_corpus, tiny_tokenizer
):
  path = ask([None, None])
  with pytest.raises(ValueError, match=r"none of 2 questions names"):
    rows_over(path, tiny_corpus, tiny_tokenizer)
