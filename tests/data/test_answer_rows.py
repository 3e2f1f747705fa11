# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from realm_jax.data import answer_rows, answers
from realm_jax.data.answer_rows import AnswerRows
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document, Question

TEXTS = [
  "Often ten tents stood in Zürich.",
  "TEN is not ten, nor is \U0001f600 \u4e2d\u6587.",
  "The end",
  "of ten and an end.",
  "Nothing.",
]
ASKED = [
  {"answers": ("ten",)},
  {"answers": ("Zürich", "\u4e2d")},
  {"answers": ("end", "end.")},
  {"answers": ("endof",)},  # Nor over the border of two texts.
  {"patterns": (r"\bten\b",)},
  {"patterns": (r"^of", r"nothing\.$")},
  {"answers": ("Zürich",), "patterns": (r"the\s+end",)},
]
QUESTIONS = [Question(text="?", **fields) for fields in ASKED]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_tokenizer):
  documents = [Document(title="t", text=text) for text in TEXTS]
  folder = tmp_path_factory.mktemp("answers") / "corpus"
  return build_corpus(documents, tiny_tokenizer, folder, max_pieces=48)


@pytest.fixture(params=["in memory", "read"])
def finder(request, corpus, monkeypatch):
  if request.param == "read":
    monkeypatch.setattr(answer_rows, "_LARGEST_PIECES", 0)
  return AnswerRows(corpus)


def beams(corpus):
  rng = np.random.default_rng(0)
  size = (len(QUESTIONS), len(corpus))
  return rng.integers(len(corpus), size=size).astype(np.int32)


def slow(corpus, rows):
  return [
    [answers.occurs(question, corpus.passage(row).text) for row in beam]
    for question, beam in zip(QUESTIONS, rows, strict=True)
  ]


def test_what_holds_an_answer_is_what_a_look_at_each_text_says(finder, corpus):
  rows = beams(corpus)
  expected = slow(corpus, rows)
  for _ in range(2):  # The second time, from memory.
    found = finder.among(QUESTIONS, rows)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)
  assert np.any(expected)
  assert not np.all(expected)


def test_a_question_s_texts_are_looked_through_once_whatever_its_beam(
  corpus, monkeypatch
):
  finder = AnswerRows(corpus)
  finder.among(QUESTIONS, beams(corpus))
  monkeypatch.setattr(AnswerRows, "_look_through", None)
  rows = np.tile(np.arange(len(corpus), dtype=np.int32), (len(QUESTIONS), 1))
  np.testing.assert_array_equal(
    finder.among(QUESTIONS, rows), slow(corpus, rows)
  )


def test_memory_is_bounded_and_what_was_used_last_stays(corpus, monkeypatch):
  entry = answer_rows._ENTRY_BYTES
  # Three entries with their few rows, and no fourth.
  monkeypatch.setattr(answer_rows, "_REMEMBERED_BYTES", 4 * entry - 1)
  finder = AnswerRows(corpus)
  made = []
  look_through = AnswerRows._look_through
  monkeypatch.setattr(
    AnswerRows,
    "_look_through",
    lambda self, question: (
      made.append(question) or look_through(self, question)
    ),
  )
  rows = np.zeros((1, 1), np.int32)
  for place in (0, 1, 2, 0, 3, 0, 1):
    finder.among([QUESTIONS[place]], rows)
  assert [QUESTIONS.index(question) for question in made] == [0, 1, 2, 3, 1]


def test_threads_share_a_finder(corpus):
  finder, rows = AnswerRows(corpus), beams(corpus)
  expected = slow(corpus, rows)
  with ThreadPoolExecutor(4) as threads:
    for found in threads.map(
      lambda _: finder.among(QUESTIONS, rows), range(16)
    ):
      np.testing.assert_array_equal(found, expected)
