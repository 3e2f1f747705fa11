# SPDX-License-Identifier: Apache-2.0
"""Questions with the passages that they name, to train a retriever (DPR).

A question's negatives are the batch's other passages and, if wanted, the best
that an index finds for it, or for others of its passage, and that answer none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
from jaxtyping import Int, Int32
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import answers, collate, packing
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold import holding_rows, named_rows
from realm_jax.data.packing import Packings
from realm_jax.data.pair_order import ENDLESS, ExampleOrder, title_numbers
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer
from realm_jax.shapes import Batch, TokenRows


def gold_rows(
  questions: Questions, corpus: PassageCorpus
) -> Int32[np.ndarray, "n"]:
  """Returns the row of each question's passage; NULL_ROW if it names none.

  Of a document that was cut, that is the first of its `holding_rows`.

  Raises:
    ValueError: a question names a passage that is not in the corpus.
  """
  rows = np.full(len(questions), collate.NULL_ROW, np.int32)
  for index in range(len(questions)):
    question = questions[index]
    named = named_rows(question.passage_uid, corpus, questions.where(index))
    holding = holding_rows(question, named, corpus)
    rows[index] = [*holding, collate.NULL_ROW][0]
  return rows


def pair_rows(
  run: RunConfig,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  questions: Questions,
) -> grain.MapDataset:
  """Returns examples of passages with questions that name them, without end.

  An example is {"query": rows [q, Q], "index": i32[q], "passage_row": i32[]},
  q being `dpr.questions`; its place alone decides what it is. Every question
  comes once an epoch (again, where a passage has too few to fill an example);
  those that name no passage are left out.

  Args:
    run: lengths, `dpr` and seed.
    tokenizer: the corpus' own.
    corpus: has the passages.
    questions: an example's `index` are its questions here.

  Raises:
    ValueError: a question names a passage that is not in the corpus, or no
      question names one.
  """
  rows = gold_rows(questions, corpus)
  named = np.flatnonzero(rows != collate.NULL_ROW)
  if not len(named):
    raise ValueError(
      f"{run.data.train}: none of {len(questions)} questions names its "
      "passage. Stage 'dpr' is trained on pairs: give 'passage_uid'."
    )
  passages, of_passage = np.unique(rows[named], return_inverse=True)
  order = ExampleOrder(
    of_passage,
    title_numbers(corpus, passages),
    run.dpr.questions,
    run.dpr.same_title,
    run.seed,
  )

  def pairs(place: int) -> dict[str, Any]:
    indices = named[order[place]]
    ids = [tokenizer.encode(questions[int(i)].text).ids for i in indices]
    return {
      "query": collate.query_rows(ids, tokenizer, run.lengths.query),
      "index": indices.astype(np.int32),
      "passage_row": rows[indices[0]],
    }

  return grain.MapDataset.range(ENDLESS).map(pairs)


def wrong_passages(
  questions: Sequence[Question],
  gold_row: int,
  found: Int32[np.ndarray, "q k"],
  corpus: PassageCorpus,
  count: int,
) -> Int32[np.ndarray, "n"]:
  """Returns the first passages found that answer none of some questions.

  That is: neither their own, nor one that holds an answer.

  Args:
    questions: of one passage, with their answers.
    gold_row: that passage.
    found: passages for each question, best first.
    corpus: of the passages.
    count: n; NULL_ROW stands where fewer are wrong.
  """
  wrong = np.full(count, collate.NULL_ROW, np.int32)
  places = iter(range(count))
  # The best of every question, then the second best of every one, and so on.
  by_rank = dict.fromkeys(found.T.reshape(-1).tolist())
  by_rank.pop(gold_row, None)
  for row in by_rank:
    text = corpus.passage(row).text
    if not any(answers.occurs(question, text) for question in questions):
      wrong[next(places)] = row
      if wrong[-1] != collate.NULL_ROW:
        break
  return wrong


def pair_packings(
  run: RunConfig,
  lengths: Mapping[str, Int[np.ndarray, "_"]],
  num_rows: Mapping[str, int],
  longest_passage: int,
  *,
  num_devices: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Packings:
  """Plans the shapes of a batch of queries and passages.

  Args:
    run: lengths, and the embedder's width.
    lengths: of some rows of "query" and of "passage", as they will come.
    num_rows: of both in a batch, this process' share.
    longest_passage: of the corpus, in tokens.
    num_devices: of this process, over which rows are divided.
    process_index: this process.
    process_count: of the run; each brings the same number of rows.

  Raises:
    ValueError: the rows do not divide over the devices.
  """
  longest = {
    "query": run.lengths.query,
    "passage": min(longest_passage, run.lengths.passage),
  }
  return Packings(
    {
      kind: packing.plan(
        packing.simulate(lengths[kind], num_rows[kind]),
        longest[kind],
        model_width=run.embedder.bert.hidden_size,
        multiple=num_devices,
        process_count=process_count,
      )
      for kind in ("query", "passage")
    },
    process_index,
  )


class PairCollator:
  """Makes `dpr` batches in a few shapes, fixed at the start."""

  def __init__(
    self,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    query_lengths: Int[np.ndarray, "_"],
    *,
    num_devices: int = 1,
    process_index: int = 0,
    process_count: int = 1,
  ) -> None:
    """Plans the shapes.

    Args:
      run: lengths, batch_size, and how many questions and negatives there are.
      corpus: that the questions' own passages are of.
      tokenizer: the corpus' own.
      query_lengths: tokens of some questions, the same on every process.
      num_devices: of this process, over which its rows are divided.
      process_index: this process.
      process_count: of the run; each brings the same number of rows.

    Raises:
      ValueError: the rows do not divide over the devices.
    """
    self._corpus, self._tokenizer = corpus, tokenizer
    self._length = run.lengths.passage
    examples = run.batch_size // process_count
    self._num_rows = {
      "query": examples * run.dpr.questions,
      "passage": examples * (1 + run.dpr.negatives),
    }
    every_row = np.arange(len(corpus))
    self._packings = pair_packings(
      run,
      {
        "query": query_lengths,
        "passage": collate.passage_lengths(corpus, every_row, self._length),
      },
      self._num_rows,
      corpus.max_pieces,
      num_devices=num_devices,
      process_index=process_index,
      process_count=process_count,
    )

  def __call__(
    self,
    examples: Batch,
    negatives: Int32[np.ndarray, "B n"],
    corpus: PassageCorpus,
  ) -> Batch:
    """Returns a `dpr` batch: each example's own passage, then its negatives.

    Args:
      examples: "query" rows [B, q, Q] and "passage_row" i32[B].
      negatives: passages for each, or NULL_ROW; n may be 0.
      corpus: of the negatives.
    """
    own = examples["passage_row"][:, None]
    ids = corpus.rows_in(self._corpus, negatives)
    # A place without a negative counts as a copy of the own passage.
    ids = np.where(negatives == collate.NULL_ROW, own, ids)
    groups = [
      self._rows(self._corpus, own),
      *[self._rows(corpus, column[:, None]) for column in negatives.T],
    ]
    passages = TokenRows(
      ids=_interleaved([rows["ids"] for rows in groups]),
      segments=_interleaved([rows["segments"] for rows in groups]),
      mask=_interleaved([rows["mask"] for rows in groups]),
    )
    rows = {"query": all_rows(examples["query"]), "passage": passages}
    return {
      **self._packings.fit(rows),
      "passage_row": np.concatenate([own, ids], axis=1).reshape(-1),
    }

  def shapes(self) -> Iterator[Batch]:
    """Yields a batch of every shape there is, to compile for."""
    ids = np.zeros(self._num_rows["passage"], np.int32)
    for packed in self._packings.shapes(self._num_rows):
      yield {**packed, "passage_row": ids}

  def _rows(self, corpus: PassageCorpus, rows: np.ndarray) -> TokenRows:
    return collate.passage_rows(
      corpus, self._tokenizer, rows.reshape(-1), self._length
    )


def all_rows(grouped: TokenRows) -> TokenRows:
  """Returns rows [B, q, T] as rows [B * q, T]."""
  length = grouped["ids"].shape[-1]
  return TokenRows(
    ids=grouped["ids"].reshape(-1, length),
    segments=grouped["segments"].reshape(-1, length),
    mask=grouped["mask"].reshape(-1, length),
  )


def _interleaved(groups: Sequence[np.ndarray]) -> np.ndarray:
  """Returns all groups' first rows, then their second ones, and so on."""
  return np.stack(groups, axis=1).reshape(-1, groups[0].shape[1])
