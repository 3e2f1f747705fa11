# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from realm_jax.config import LengthConfig, OpenQaConfig, RunConfig
from realm_jax.data import beams
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.qa import Questions, question_rows
from realm_jax.data.records import Document

RUN = RunConfig(
  stage="openqa",
  batch_size=2,
  lengths=LengthConfig(query=24, passage=48, joint=72),
  openqa=OpenQaConfig(beam=4, read=2, max_span=4),
)


@pytest.fixture
def questions(tmp_path, tiny_corpus):
  lines = []
  for row in (0, 2):
    passage = tiny_corpus.passage(row)
    answer = passage.text.split()[5].strip(".")
    lines.append({"question": f"{passage.title}?", "answers": [answer]})
  path = tmp_path / "questions.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return Questions(str(path))


def batch_of(questions, tiny_corpus, tiny_tokenizer, beam, gold=(-1, -1)):
  dataset = question_rows(RUN, tiny_tokenizer, questions, train=False)
  examples = [dataset[0], dataset[1]]
  stacked = {
    "query": {
      name: np.stack([example["query"][name] for example in examples])
      for name in ("ids", "segments", "mask")
    },
    "index": np.array([0, 1], np.int32),
    "gold_row": np.array(gold, np.int32),
  }
  collate = beams.BeamCollator(
    RUN, tiny_corpus, tiny_tokenizer, questions, np.array([9, 12])
  )
  return collate(stacked, beam, {"beam_embs": np.zeros((2, 4, 8), np.float32)})


def test_gold_spans_spell_the_answer_and_lie_in_the_block(
  questions, tiny_corpus, tiny_tokenizer, unpacked
):
  beam = np.array([[0, 5, 6, 7], [9, 2, 8, 0]], np.int32)
  batch = batch_of(questions, tiny_corpus, tiny_tokenizer, beam)
  rows = iter(unpacked(batch["joint"], "ids"))
  ids = [[next(rows), next(rows)] for _ in range(2)]
  block = batch["block_mask"].reshape(2, 2, -1)
  found = np.argwhere(batch["gold_spans"])
  assert {(b, r) for b, r, _, _ in found} == {(0, 0), (1, 1)}
  for question, read, start, width in found:
    span = slice(start, start + width + 1)
    spelled = tiny_tokenizer.decode(ids[question][read][span])
    assert spelled == questions[int(question)].answers[0].lower()
    assert block[question, read, span].all()


def test_an_answer_of_unknown_pieces_is_found_as_it_is_written(
  tmp_path, tiny_tokenizer
):
  text = "The sign \u6f22 means \u4ee4 here, and \u6f22 there."
  documents = [
    Document(title=str(i), text=f"{text} {i}", uid=str(i)) for i in range(8)
  ]
  corpus = build_corpus(
    documents, tiny_tokenizer, tmp_path / "unknown", max_pieces=48
  )
  path = tmp_path / "questions.jsonl"
  lines = [
    {"question": "Which sign?", "answers": ["\u4ee4"]},
    {"question": "Which sign?", "answers": ["\u6f22", "sign"]},
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  beam = np.array([[0, 5, 6, 7], [2, 1, 3, 0]], np.int32)
  batch = batch_of(Questions(str(path)), corpus, tiny_tokenizer, beam)
  assert batch["gold_spans"].sum(axis=(2, 3)).tolist() == [[1, 1], [3, 3]]
  (one,), (sign, first, last) = (
    np.flatnonzero(gold.any(axis=1)) for gold in batch["gold_spans"][:, 0]
  )
  assert sign < first < one < last


def test_the_retriever_s_supervision_is_the_raw_answer_string(
  questions, tiny_corpus, tiny_tokenizer
):
  beam = np.array([[0, 5, 6, 7], [9, 2, 8, 0]], np.int32)
  batch = batch_of(questions, tiny_corpus, tiny_tokenizer, beam)
  for question in range(2):
    [answer] = questions[question].answers
    expected = [answer in tiny_corpus.passage(r).text for r in beam[question]]
    assert batch["beam_has_answer"][question].tolist() == expected
  assert batch["beam_has_answer"][0, 0]
  assert batch["beam_has_answer"][1, 1]


def test_a_passage_that_a_question_names_is_right_however_it_is_worded(
  questions, tiny_corpus, tiny_tokenizer
):
  beam = np.array([[0, 5, 6, 7], [9, 2, 8, 0]], np.int32)
  plain, named = (
    batch_of(questions, tiny_corpus, tiny_tokenizer, beam, gold)
    for gold in ((-1, -1), (7, 30))  # The beam of the second has no 30.
  )
  changed = plain["beam_has_answer"] != named["beam_has_answer"]
  assert np.argwhere(changed).tolist() == [[0, 3]]


def test_the_passage_that_is_right_is_among_those_read():
  beam = np.array([[4, 5, 6, 7], [4, 5, 6, 7], [4, 5, 6, 7], [4, 5, 6, 7]])
  gold = np.array([5, 7, 9, -1], np.int32)
  found = beams.with_gold(beam.astype(np.int32), gold, 2)
  assert found.tolist() == [
    [4, 5, 6, 7],  # Was there.
    [4, 7, 6, 5],  # Changes places.
    [4, 9, 6, 7],  # Drives out the second.
    [4, 5, 6, 7],  # None is named.
  ]


def test_a_beam_larger_than_the_corpus_is_refused(
  questions, tiny_corpus, tiny_tokenizer
):
  run = dataclasses.replace(RUN, openqa=OpenQaConfig(beam=10_000, read=2))
  with pytest.raises(ValueError, match=r"openqa.beam \(10000\) <= the corpus'"):
    beams.BeamCollator(
      run, tiny_corpus, tiny_tokenizer, questions, np.array([9])
    )
