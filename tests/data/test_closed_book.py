# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from realm_jax.config import DataConfig, LengthConfig, OpenQaConfig, RunConfig
from realm_jax.data.closed_book import (
  closed_book_length,
  closed_book_row,
  closed_book_rows,
  fill_in,
)
from realm_jax.data.qa import Questions

Q, W = 8, 4
RUN = RunConfig(
  stage="openqa",
  lengths=LengthConfig(query=Q, passage=20, joint=Q + W + 1),
  openqa=OpenQaConfig(retriever="none", max_span=W),
)


@pytest.mark.parametrize("length", [0, 3, Q - 2, Q + 5])
def test_masks_follow_the_question_that_is_cut_as_elsewhere(
  tiny_tokenizer, length
):
  t = tiny_tokenizer
  pieces = np.arange(20, 20 + length, dtype=np.int32)
  made = closed_book_row(pieces, t, RUN)

  kept = pieces[: Q - 2].tolist()
  wanted = [t.cls_id, *kept, *[t.mask_id] * W, t.sep_id, t.sep_id]
  row, used = made["joint"], len(wanted)
  padding = [t.pad_id] * (closed_book_length(RUN) - used)
  assert row["ids"].tolist() == wanted + padding
  assert row["mask"].tolist() == [True] * used + [False] * len(padding)
  # The null document is the last [SEP].
  assert np.flatnonzero(row["segments"]).tolist() == [used - 1]
  assert (row["ids"][made["positions"]] == t.mask_id).all()
  assert len(made["positions"]) == W


@pytest.mark.parametrize(
  ("answer", "targets", "num_targets"),
  [([7], [7, 3, 0, 0], 2), ([7, 8, 9], [7, 8, 9, 3], 4)],
)
def test_targets_are_the_answer_and_one_end_piece(answer, targets, num_targets):
  found = fill_in(np.array(answer, np.int32), end_id=3, num_masks=W)
  assert found["targets"].tolist() == targets
  assert found["target_mask"].tolist() == [
    place < num_targets for place in range(W)
  ]


@pytest.fixture
def rows_of(tmp_path, tiny_tokenizer):
  """Lines of a file of questions -> the examples made of them."""

  def make(*lines):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = dataclasses.replace(RUN, data=DataConfig(train=str(path)))
    return closed_book_rows(run, tiny_tokenizer, Questions(str(path)))

  return make


def answer_in(example, tokenizer):
  return tokenizer.decode(example["targets"][example["target_mask"]])


def test_answers_take_turns_and_what_does_not_fit_is_left_out(
  rows_of, tiny_tokenizer
):
  long, unknown = "may may may may", "\u4e16"
  rows = rows_of(
    {"question": "free?", "answers": [long, "may", unknown, "road lead"]},
    {"question": "long?", "answers": [long, unknown]},
    {"question": "harvest?", "answers": ["capital"]},
    {"question": "pattern?", "answers_regex": ["may"]},
  )
  found = [answer_in(rows[place], tiny_tokenizer) for place in range(40)]
  assert sorted(set(found)) == ["capital", "may", "road lead"]
  # Two questions are left: every epoch has each of them once.
  for first in range(0, 40, 2):
    assert (found[first : first + 2]).count("capital") == 1
  assert found == [answer_in(rows[i], tiny_tokenizer) for i in range(40)]


def test_a_longest_answer_leaves_room_for_its_end(rows_of, tiny_tokenizer):
  rows = rows_of({"question": "?", "answers": ["may may may"]})
  assert rows[0]["target_mask"].all()
  assert rows[0]["targets"][-1] == tiny_tokenizer.sep_id


def test_questions_that_have_nothing_to_fill_in_are_refused(rows_of):
  with pytest.raises(ValueError, match=r"none of 2 questions.*1 to 3 word"):
    rows_of(
      {"question": "a?", "answers": ["may may may may"]},
      {"question": "b?", "answers_regex": ["may"]},
    )
