# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import pytest

from experiments.factbook_demo import examples, wordings
from experiments.factbook_demo.facts import RELATIONS, Fact
from realm_jax.data.jsonl import JsonLines
from realm_jax.data.sources import read_documents


@pytest.fixture(scope="module")
def folder(placed, tmp_path_factory):
  directory = tmp_path_factory.mktemp("examples") / "data"
  examples.write_examples(placed, directory)
  return directory


def read(folder, name):
  return list(JsonLines(folder / f"{name}.jsonl"))


def test_every_relation_has_wordings_and_no_unseen_one_is_trained_on():
  said = wordings.load_wordings()

  assert set(said) == set(RELATIONS)
  for one in said.values():
    assert len(one.statements) >= 2
    assert not set(one.unseen) & set(one.questions)
    assert all(text.count("{value}") == 1 for text in one.statements)
    assert all("{value}" not in text for text in one.questions + one.unseen)
    for text in one.statements + one.questions + one.unseen:
      assert text.count("{country}") == 1


def test_the_marked_span_is_exactly_the_value(placed):
  for one in placed:
    for template in wordings.load_wordings()[one.fact.relation].statements:
      text, (start, end) = wordings.state(template, one.fact)
      assert text[start:end] == one.fact.value
      assert one.fact.country in text


def test_a_value_that_looks_like_a_template_is_left_alone():
  fact = Fact(
    country="Oz",
    relation="capital",
    value="{other}",
    document_uid="oz/capital",
    evidence="Name: {other}.",
  )

  assert wordings.state("It is {value}.", fact) == ("It is {other}.", (6, 13))


def test_placed_facts_fit_and_their_passage_holds_the_value(
  placed, corpus, tokenizer
):
  assert len(placed) > 1_500
  for one in placed[::7]:
    passage = corpus.passage(corpus.row_of(one.passage_uid))
    assert one.fact.value in passage.text
    assert passage.title == one.fact.country
    assert 1 <= len(tokenizer.encode(one.fact.value)) <= 8


def test_a_fact_that_does_not_fit_is_left_out(placed, corpus, tokenizer):
  few = [one.fact for one in placed[:200]]

  assert len(examples.place_facts(few, corpus, tokenizer, 24)) == 200
  assert examples.place_facts(few, corpus, tokenizer, 3) == []


def test_no_held_out_fact_is_in_a_training_file(folder, placed):
  sentences = {line["text"] for line in read(folder, "train_text")}
  questions = {line["question"] for line in read(folder, "train_qa")}

  for one in placed:
    if one.fact.split == "train":
      continue
    said = wordings.load_wordings()[one.fact.relation]
    stated = {wordings.state(t, one.fact)[0] for t in said.statements}
    asked = {wordings.ask(t, one.fact) for t in said.questions + said.unseen}
    assert not stated & sentences
    assert not asked & questions


def test_no_training_sentence_tells_a_held_out_value_of_the_same_country(
  folder, placed
):
  # Equal values of different relations ("English" spoken, "China" both
  # buying and selling) are different facts; equal names are what may leak.
  told = {
    (one.fact.country, one.fact.value)
    for one in placed
    if one.fact.split == "train"
    and one.fact.relation in ("chief of state", "independence")
  }

  for one in placed:
    if one.fact.relation in ("head of government", "national holiday"):
      assert (one.fact.country, one.fact.value) not in told


def test_training_has_every_wording_and_held_out_facts_have_one(folder, placed):
  splits = Counter(one.fact.split for one in placed)

  assert len(read(folder, "train_text")) == 3 * splits["train"]
  assert len(read(folder, "train_qa")) == 3 * splits["train"]
  for split in ("validation", "test"):
    assert len(read(folder, f"{split}_text")) == splits[split]
    assert len(read(folder, f"{split}_qa")) == splits[split]
  assert len(read(folder, "test_qa_unseen_wordings")) == splits["test"]


def test_unseen_questions_ask_for_the_same_facts_in_other_words(folder):
  seen = read(folder, "test_qa")
  unseen = read(folder, "test_qa_unseen_wordings")

  for first, second in zip(seen, unseen, strict=True):
    assert first["question"] != second["question"]
    assert first["answers"] == second["answers"]
    assert first["passage_uid"] == second["passage_uid"]


def test_the_majority_guess_is_right_as_often_as_the_value_is_common():
  def placed_fact(country, value):
    fact = Fact(
      country=country,
      relation="capital",
      value=value,
      document_uid="",
      evidence=value,
    )
    return examples.PlacedFact(fact=fact, passage_uid="")

  names = [f"country {i}" for i in range(200)]
  train = [n for n in names if placed_fact(n, "").fact.split == "train"]
  test = [n for n in names if placed_fact(n, "").fact.split == "test"][:8]
  placed = [placed_fact(n, "A" if i % 3 else "B") for i, n in enumerate(train)]
  placed += [placed_fact(n, "a" if i < 2 else "B") for i, n in enumerate(test)]

  assert examples.majority_exact_match(placed) == 2 / 8


def test_documents_are_read_back_as_they_were_written(documents, tmp_path):
  examples.write_documents(tmp_path / "documents.jsonl", documents[:50])

  found = list(read_documents(str(tmp_path / "documents.jsonl")))

  assert [(d.uid, d.title, d.text) for d in found] == [
    (d.uid, d.title, d.text) for d in documents[:50]
  ]


def test_passages_of_a_split_document_are_found_in_order(corpus):
  found = examples.document_passages(corpus, "france/executive-branch")

  assert len(found) > 2
  assert found[0].text.startswith("Executive branch.")
  assert found[1].uid == "france/executive-branch#1"
  assert examples.document_passages(corpus, "france/no-such-field") == []
