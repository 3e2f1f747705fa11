# SPDX-License-Identifier: Apache-2.0
"""Questions and their answers, for open question answering."""

from typing import Any

import grain
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.jsonl import (
  JsonLines,
  check_first,
  optional_text,
  text_field,
)
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer


class Questions:
  """The questions of a JSONL file.

  A line is {"question", "answers": [..], "passage_uid"?}.
  """

  def __init__(self, path: str) -> None:
    """Reads the first lines, to fail early.

    Raises:
      OSError: the file cannot be opened.
      ValueError: it is empty or a line is bad; names file and line.
    """
    self._lines = JsonLines(path)
    check_first(self)

  def __len__(self) -> int:
    return len(self._lines)

  def __getitem__(self, index: int) -> Question:
    found, where = self._lines[index], self._lines.where(index)
    return Question(
      text=text_field(found, "question", where),
      answers=_to_answers(found.get("answers"), where),
      passage_uid=optional_text(found, "passage_uid", where),
    )


def _to_answers(found: Any, where: str) -> tuple[str, ...]:
  is_list = isinstance(found, list) and len(found) > 0
  if not is_list or not all(isinstance(a, str) and a.strip() for a in found):
    raise ValueError(
      f"{where}: 'answers' must be a list of one or more non-empty strings, "
      f"got {found!r}."
    )
  return tuple(found)


def question_rows(
  run: RunConfig, tokenizer: Tokenizer, questions: Questions, *, train: bool
) -> grain.MapDataset:
  """Returns examples {"query": row [Q], "index": i32[]}.

  Args:
    run: lengths and seed.
    tokenizer: the corpus' own.
    questions: an example's `index` is its question's here.
    train: shuffled anew in every epoch, without end; or once in order.
  """

  def example(index: int) -> dict[str, Any]:
    ids = tokenizer.encode(questions[index].text).ids
    return {
      "query": collate.query_row(ids, tokenizer, run.lengths.query),
      "index": np.int32(index),
    }

  dataset = grain.MapDataset.range(len(questions)).seed(run.seed)
  if train:
    dataset = dataset.shuffle().repeat()
  return dataset.map(example)
