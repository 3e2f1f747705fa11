# SPDX-License-Identifier: Apache-2.0
"""Questions that are answered without a passage, by filling in masks.

  [CLS] question [MASK] * W [SEP] [SEP]

The masks hold the answer's pieces and then an end piece, [SEP]; what stands
after that is not asked for. The second [SEP] is the null document.
"""

from typing import Any

import grain
from jaxtyping import Int32
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer

Ids = Int32[np.ndarray, "_"]


def closed_book_length(run: RunConfig) -> int:
  """Returns the tokens of a row: Q, the W masks and the null document."""
  return run.lengths.query + run.openqa.max_span + 1


def closed_book_row(
  question: Ids, tokenizer: Tokenizer, run: RunConfig
) -> dict[str, Any]:
  """Returns {"joint": row, "positions": i32[W]} of a question's pieces.

  A question is cut to Q as it is where passages are read: the masks come on
  top.
  """
  num_masks = run.openqa.max_span
  pieces = question[: run.lengths.query - 2]
  masks = np.full(num_masks, tokenizer.mask_id, np.int32)
  length = closed_book_length(run)
  query = collate.query_row(
    np.concatenate([pieces, masks]), tokenizer, length - 1
  )
  nothing = np.zeros(0, np.int32)
  first = 1 + len(pieces)  # [CLS] comes first.
  return {
    "joint": collate.joint_row(query, nothing, tokenizer, length),
    "positions": np.arange(first, first + num_masks, dtype=np.int32),
  }


def fill_in(answer: Ids, end_id: int, num_masks: int) -> dict[str, Any]:
  """Returns {"targets": i32[W], "target_mask": bool[W]} of an answer's pieces.

  Args:
    answer: W - 1 pieces or fewer.
    end_id: the end piece.
    num_masks: W.
  """
  targets = np.zeros(num_masks, np.int32)
  targets[: len(answer)] = answer
  targets[len(answer)] = end_id
  return {
    "targets": targets,
    "target_mask": np.arange(num_masks) <= len(answer),
  }


def closed_book_rows(
  run: RunConfig, tokenizer: Tokenizer, questions: Questions
) -> grain.MapDataset:
  """Returns examples of questions with an answer each, without end.

  An example is {"joint": row [Q + W + 1], "positions": i32[W], "targets":
  i32[W], "target_mask": bool[W]}; index alone decides what it is. Of several
  answers one is drawn anew in every epoch. Left out are answers of more than
  W - 1 pieces, or with [UNK], and questions that have no others (patterns
  cannot be filled in).

  Args:
    run: lengths, `openqa.max_span` and seed.
    tokenizer: the encoder's own.
    questions: with their answers.

  Raises:
    ValueError: no question is left.
  """
  num_masks = run.openqa.max_span

  def fitting(question: Question) -> list[Ids]:
    encoded = tokenizer.encode_batch(question.answers)
    return [
      each.ids
      for each in encoded
      if 0 < len(each) < num_masks and tokenizer.unk_id not in each.ids
    ]

  kept = [i for i in range(len(questions)) if fitting(questions[i])]
  if not kept:
    raise ValueError(
      f"{run.data.train}: none of {len(questions)} questions has an answer of "
      f"1 to {num_masks - 1} word pieces to fill in (openqa.max_span - 1; "
      "'answers_regex' has none). Raise openqa.max_span, or give 'answers'."
    )

  def example(place: int, rng: np.random.Generator) -> dict[str, Any]:
    question = questions[kept[place]]
    answers = fitting(question)
    answer = answers[rng.integers(len(answers))]
    pieces = tokenizer.encode(question.text).ids
    return {
      **closed_book_row(pieces, tokenizer, run),
      **fill_in(answer, tokenizer.sep_id, num_masks),
    }

  dataset = grain.MapDataset.range(len(kept)).seed(run.seed)
  return dataset.shuffle().repeat().random_map(example)
