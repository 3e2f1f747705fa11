# SPDX-License-Identifier: Apache-2.0
"""Questions and their answers, for open question answering."""

import os
from typing import Any, Protocol, runtime_checkable

import grain
from jaxtyping import Int
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import answers, collate, orqa_split
from realm_jax.data.jsonl import (
  JsonLines,
  check_first,
  text_field,
)
from realm_jax.data.records import Question
from realm_jax.data.tfds_records import PREFIX, TfdsRecords
from realm_jax.data.tokenize import Tokenizer


@runtime_checkable
class _Records(Protocol):
  """Objects with a question's fields, by number."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> dict[str, Any]: ...

  def where(self, index: int, /) -> str: ...


class Questions:
  """The questions of a source, by number.

  A source is a file of JSONL, plain or .gz, which may be in a store, or a
  split of TensorFlow Datasets ("tfds:natural_questions_open/train"; see
  `TfdsRecords`). A line of JSONL is {"question", "answers": [..]}, or with
  "answers_regex" in place of "answers"; and it may name, as "passage_uid" or
  "passage_id", the passage that the question is about.

  "#orqa_train" or "#orqa_dev" at a source's end selects that part of ORQA's
  split of it.
  """

  def __init__(self, source: str) -> None:
    """Reads the first questions, to fail early.

    Raises:
      OSError: the file cannot be opened.
      ValueError: it is empty or a line is bad, with file and line; the
        selected part is unknown or empty; or as `TfdsRecords` raises.
    """
    name, part = _split_off_part(source)
    self._records: _Records = (
      TfdsRecords(name) if name.startswith(PREFIX) else JsonLines(name)
    )
    self._selected = np.arange(len(self._records))
    if part:
      self._selected = self._select(part)
    if not len(self._selected):
      raise ValueError(f"{source} has no question.")
    check_first(self)

  def _select(self, part: str) -> Int[np.ndarray, "n"]:
    parts = [
      orqa_split.part_of(self._question(index).text)
      for index in range(len(self._records))
    ]
    return np.flatnonzero(np.array(parts) == part)

  def __len__(self) -> int:
    return len(self._selected)

  def __getitem__(self, index: int) -> Question:
    return self._question(int(self._selected[index]))

  def _question(self, record: int) -> Question:
    return to_question(self._records[record], self._records.where(record))

  def where(self, index: int) -> str:
    """Returns where a question stands, for error messages: "path:line"."""
    return self._records.where(int(self._selected[index]))


def _split_off_part(source: str) -> tuple[str, str]:
  """Returns a source's own name, and the part of it that it selects."""
  name, mark, part = source.rpartition("#")
  if not mark or os.path.exists(source):
    return source, ""
  if part not in orqa_split.PARTS:
    raise ValueError(
      f"{source}: after '#' a source says which part is meant, one of "
      f"{list(orqa_split.PARTS)}, got {part!r}."
    )
  return name, part


def to_question(found: dict[str, Any], where: str) -> Question:
  """Returns the question that an object of a JSONL file holds.

  Raises:
    ValueError: a field is missing or of another type, or a pattern is no
      regular expression; begins with `where`.
  """
  kinds = [name for name in ("answers", "answers_regex") if name in found]
  if len(kinds) != 1:
    raise ValueError(
      f"{where}: a question has 'answers' or 'answers_regex', one of them; "
      f"the object has {sorted(found)}."
    )
  references = _to_strings(found[kinds[0]], kinds[0], where)
  is_regex = kinds == ["answers_regex"]
  if is_regex:
    _check_patterns(references, where)
  return Question(
    text=text_field(found, "question", where),
    answers=() if is_regex else references,
    patterns=references if is_regex else (),
    passage_uid=_to_uid(found, where),
  )


def _to_strings(found: Any, name: str, where: str) -> tuple[str, ...]:
  is_list = isinstance(found, list) and len(found) > 0
  if not is_list or not all(isinstance(a, str) and a.strip() for a in found):
    raise ValueError(
      f"{where}: '{name}' must be a list of one or more non-empty strings, "
      f"got {found!r}."
    )
  return tuple(found)


def _check_patterns(patterns: tuple[str, ...], where: str) -> None:
  for pattern in patterns:
    try:
      answers.compiled(pattern)
    except ValueError as error:
      raise ValueError(f"{where}: {error}") from error


def _to_uid(found: dict[str, Any], where: str) -> str:
  uid = found.get("passage_uid", found.get("passage_id"))
  # As a corpus reads the same number in its source.
  if not isinstance(uid, str | int | None) or isinstance(uid, bool):
    raise ValueError(
      f"{where}: 'passage_uid' or 'passage_id' must be a string or a whole "
      f"number, got {uid!r}."
    )
  return "" if uid is None else str(uid)


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
