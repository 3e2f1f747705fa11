# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil

import numpy as np
import pytest

from realm_jax import checkpoints, config
from realm_jax import workdir as workdir_lib
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.eval import evaluate, open_qa
from realm_jax.eval.finders import open_finder
from realm_jax.index.bm25 import Bm25Index
from realm_jax.index.search import NO_PASSAGE

QUESTIONS = [
  "Which is the capital of Chad?",
  "What lies far from the sea?",
  "unheard-of",
]
STEP = 7


@pytest.fixture
def find(workdirs, tokenizer):
  """(kind, k) -> what it finds for QUESTIONS."""

  def found(kind, k, stage="openqa"):
    run = workdir_lib.load(workdirs[stage])
    finder = open_finder(workdirs[stage], run, tokenizer, step=STEP, kind=kind)
    return finder.find(QUESTIONS, k)

  return found


def by_row(found):
  """The logits of each question's passages, by row of the corpus."""
  order = np.argsort(found.ids, axis=1)
  return np.take_along_axis(found.scores, order, axis=1)


def test_words_find_what_bm25_finds(find, corpus):
  found, wanted = find("bm25", 5), Bm25Index.open(corpus).search(QUESTIONS, 5)
  np.testing.assert_array_equal(found.ids, wanted.ids)
  np.testing.assert_array_equal(found.scores, wanted.scores)


def test_both_together_add_up_their_logits(find, corpus):
  everything = len(corpus)
  wanted = by_row(find("dense", everything)) + by_row(find("bm25", everything))
  found = find("hybrid", everything)
  np.testing.assert_allclose(by_row(found), wanted, rtol=1e-4, atol=1e-4)
  assert (np.diff(found.scores, axis=1) <= 0).all()


def test_the_best_of_both_are_distinct_and_of_either_s_best(find):
  dense, words, found = (find(kind, 3) for kind in ("dense", "bm25", "hybrid"))
  for line, ids in enumerate(found.ids):
    assert len(set(ids)) == 3
    assert set(ids) <= {*dense.ids[line], *words.ids[line]}


def test_a_small_corpus_fills_the_rest_with_no_passage(find, corpus):
  found = find("hybrid", len(corpus) + 2)
  assert (found.ids[:, -2:] == NO_PASSAGE).all()
  assert (found.scores[:, -2:] == -np.inf).all()
  assert (found.ids[:, :-2] != NO_PASSAGE).all()


@pytest.fixture(scope="module")
def bm25_workdir(workdirs, tmp_path_factory):
  """A run that trained beside BM25's passages: a reader, and no index."""
  run = workdir_lib.load(workdirs["openqa"])
  run = dataclasses.replace(
    run, openqa=dataclasses.replace(run.openqa, retriever="bm25")
  )
  workdir = tmp_path_factory.mktemp("bm25")
  (workdir / "config.json").write_text(config.dumps(run))
  reader = checkpoints.restore_params(workdirs["openqa"], STEP, "reader")
  with checkpoints.CheckpointWriter(workdir, keep=1) as writer:
    writer.save(
      STEP,
      {"params": {"reader": reader}},
      checkpoints.RunPosition(data_state={}),
    )
  return str(workdir)


def test_a_run_beside_bm25_answers_and_is_scored_without_an_index(
  bm25_workdir, workdirs, data_dir, tmp_path
):
  answerer = open_qa.QuestionAnswerer.open(bm25_workdir)
  same = open_qa.QuestionAnswerer.open(workdirs["openqa"], retriever="bm25")
  assert answerer.answer(QUESTIONS) == same.answer(QUESTIONS)
  assert len(list(answerer.converse(QUESTIONS))) == 3

  figures = evaluate.evaluate(
    bm25_workdir,
    questions=str(data_dir / "questions.jsonl"),
    predictions=str(tmp_path / "found.jsonl"),
  )
  assert figures["index_version"] == "bm25"
  # "Which is the capital of Peru?" shares its words with the right passage.
  assert figures["passage_recall_at_1"] > 0.5


def test_it_has_no_towers_to_search_by(bm25_workdir):
  with pytest.raises(ValueError, match="no towers to search by"):
    open_qa.QuestionAnswerer.open(bm25_workdir, retriever="hybrid")


def test_a_retriever_alone_is_scored_together_with_words(workdirs, data_dir):
  figures = evaluate.evaluate(
    workdirs["ict"],
    questions=str(data_dir / "questions.jsonl"),
    retriever="hybrid",
  )
  assert figures["step"] == STEP
  assert figures["index_version"].endswith(" + bm25")


@pytest.mark.parametrize("trained_with", ["dense", "bm25"])
def test_a_reader_given_the_gold_passage_needs_no_index(
  trained_with, bm25_workdir, workdirs, data_dir, tmp_path, corpus
):
  workdir = tmp_path / "run"
  source = {"dense": workdirs["openqa"], "bm25": bm25_workdir}[trained_with]
  shutil.copytree(source, workdir, ignore=shutil.ignore_patterns("index"))
  figures = evaluate.evaluate(
    str(workdir),
    questions=str(data_dir / "questions.jsonl"),
    predictions=str(tmp_path / "found.jsonl"),
    retriever="gold",
  )
  assert figures["index_version"] == "gold" and figures["num_read"] == 1
  assert not [name for name in figures if "recall" in name]
  lines = (tmp_path / "found.jsonl").read_text().splitlines()
  assert len(lines) == figures["num_examples"] == 10
  for line in map(json.loads, lines):
    country = line["question"].split("capital of ")[1].rstrip("?")
    for answer in line["answers"]:
      assert {e["uid"] for e in answer["evidence"]} == {f"{country}/capital"}
      assert answer["evidence"][0]["retrieval_prob"] == 1.0


def test_all_parts_of_a_passage_are_read_and_a_question_without_is_wrong(
  workdirs, tokenizer, tmp_path, write_lines
):
  """Of parts, that is, those that hold the answer."""
  text = "Rome is old. " * 12
  document = Document(title="Italy", text=text, uid="Italy")
  cut = build_corpus([document], tokenizer, tmp_path / "cut", max_pieces=24)
  question = {"question": "Rome?", "answers": ["Rome"]}
  figures = evaluate.evaluate(
    workdirs["openqa"],
    questions=write_lines(
      tmp_path / "q.jsonl", [{**question, "passage_id": "Italy"}, question]
    ),
    predictions=str(tmp_path / "found.jsonl"),
    corpus=str(cut.directory),
    retriever="gold",
  )
  assert figures["num_read"] == len(cut) > 1
  assert figures["reader_oracle"] == 0.5
  lines = (tmp_path / "found.jsonl").read_text().splitlines()
  named, unnamed = map(json.loads, lines)
  assert named["answers"][0]["evidence"][0]["retrieval_prob"] == pytest.approx(
    1 / len(cut)
  )
  assert unnamed["answers"] == [] and not unnamed["exact_match"]


@pytest.mark.parametrize(
  ("stage", "flags", "message"),
  [
    ("realm", {}, "stage 'realm', which has no reader"),
    ("openqa", {"read": 2}, "every passage that a question names"),
    ("openqa", {}, "None of 1 questions names its passage"),
  ],
)
def test_what_gold_passages_do_not_go_with_is_refused(
  workdirs, tmp_path, write_lines, stage, flags, message
):
  question = {"question": "Who?", "answers": ["me"]}
  path = write_lines(tmp_path / "q.jsonl", [question])
  with pytest.raises(ValueError, match=message):
    evaluate.evaluate(
      workdirs[stage], questions=path, retriever="gold", **flags
    )


def test_texts_are_searched_as_in_training(workdirs, data_dir):
  with pytest.raises(ValueError, match="--retriever=bm25 finds passages for"):
    evaluate.evaluate(
      workdirs["realm"],
      texts=str(data_dir / "texts.jsonl"),
      retriever="bm25",
    )
