# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.eval import questions, scores
from realm_jax.eval.open_qa import QuestionAnswerer


def _evaluate(workdir, source, limit=0):
  return questions.evaluate_questions(
    workdir, str(source), corpus="", step=0, limit=limit
  )


@pytest.fixture(scope="module")
def evaluated(workdirs, data_dir):
  return _evaluate(workdirs["openqa"], data_dir / "questions.jsonl", limit=9)


def test_evaluation_scores_the_first_answer(workdirs, evaluated):
  figures, found = evaluated
  asked = [prediction.question for prediction in found]
  assert len(asked) == figures["num_examples"] == 9
  answerer = QuestionAnswerer.open(workdirs["openqa"])
  for prediction, answered in zip(found, answerer.answer(asked), strict=True):
    text = answered.answers[0].text
    assert prediction.answers[0].text == text
    assert prediction.exact_match == scores.exact_match(
      text, prediction.references
    )
    assert prediction.f1 == scores.token_f1(text, prediction.references)
  assert figures["step"] == 7 and figures["index_version"].startswith("0000000")


def test_more_passages_may_be_read_than_in_training(workdirs, data_dir):
  data = str(data_dir / "questions.jsonl")
  few, many = (
    questions.evaluate_questions(
      workdirs["openqa"], data, corpus="", step=0, limit=3, read=read
    )
    for read in (0, 7)
  )
  assert (few[0]["num_read"], many[0]["num_read"]) == (3, 7)
  assert few[1] != many[1]


def test_evaluation_scores_the_passages(workdirs, evaluated, corpus):
  figures, found = evaluated
  asked = [prediction.question for prediction in found]
  neighbors = QuestionAnswerer.open(workdirs["openqa"]).find(asked).ids
  assert neighbors.shape == (9, len(corpus))
  ranks = [
    row.tolist().index(
      corpus.row_of(q.split("capital of ")[1].rstrip("?") + "/capital")
    )
    + 1
    for q, row in zip(asked, neighbors, strict=True)
  ]
  assert [prediction.passage_rank for prediction in found] == ranks
  assert figures["passage_recall_at_5"] == pytest.approx(
    np.mean(np.array(ranks) <= 5)
  )
  assert figures["answer_recall_at_5"] >= figures["passage_recall_at_5"]


def test_a_run_without_a_reader_is_scored_by_its_retriever(workdirs, data_dir):
  figures, found = _evaluate(workdirs["realm"], data_dir / "questions.jsonl")
  assert len(list(found)) == figures["num_examples"] == 10
  assert {"passage_recall_at_5", "answer_recall_at_5"} <= figures.keys()
  assert "exact_match" not in figures


def test_a_run_without_a_reader_lists_what_it_finds(workdirs, data_dir, corpus):
  data = str(data_dir / "questions.jsonl")
  (figures, few), (same, many) = (
    questions.evaluate_questions(
      workdirs["realm"], data, corpus="", step=0, limit=0, read=read
    )
    for read in (0, 7)
  )
  assert figures == same  # What is listed changes no figure.
  few, many = list(few), list(many)
  assert {len(line.passages) for line in many} == {7}
  for short, line in zip(few, many, strict=True):
    assert short.passages == line.passages[: len(short.passages)]
    passages = line.passages
    scores_given = [passage.score for passage in passages]
    assert scores_given == sorted(scores_given, reverse=True)
    for passage in passages:
      assert passage.text == corpus.passage(corpus.row_of(passage.uid)).text
    holding = [i + 1 for i, each in enumerate(passages) if each.holds_answer]
    if line.answer_rank is None or line.answer_rank > 7:
      assert holding == []
    else:
      assert holding[0] == line.answer_rank
  in_5 = [(line.answer_rank or 6) <= 5 for line in few]
  assert figures["answer_recall_at_5"] == pytest.approx(np.mean(in_5))


@pytest.mark.parametrize("stage", ["openqa", "realm"])
def test_an_unknown_passage_is_named_with_its_line(
  tmp_path, write_lines, workdirs, stage
):
  line = {"question": "Who?", "answers": ["me"]}
  path = write_lines(
    tmp_path / "q.jsonl", [line, {**line, "passage_id": "Atlantis"}]
  )
  with pytest.raises(ValueError, match=r"q\.jsonl:2: .*'Atlantis'"):
    _evaluate(workdirs[stage], path)
