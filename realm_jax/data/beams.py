# SPDX-License-Identifier: Apache-2.0
"""A question's retrieved passages to the batch of a fine-tuning step (ORQA)."""

from collections.abc import Iterator
import copy
import dataclasses
import functools

from jaxtyping import Bool, Int, Int32
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate, packing
from realm_jax.data.answer_rows import AnswerRows
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold_spans import gold_spans, matched_spans
from realm_jax.data.packing import Packings
from realm_jax.data.qa import Questions
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer
from realm_jax.shapes import Batch, TokenRows

_KEPT_CORPORA = 2  # The one in use, and the one that the run moves to.


def with_gold(
  beam: Int32[np.ndarray, "B C"],
  gold_rows: Int32[np.ndarray, "B"],
  num_read: int,
) -> Int32[np.ndarray, "B C"]:
  """Returns beams whose first R passages have the one that is right.

  Where it is not among them, it changes places with the R-th; one that the
  beam lacks takes that place.

  Args:
    beam: distinct passages, best first.
    gold_rows: the passage of each question, or NULL_ROW.
    num_read: R
  """
  beam = beam.copy()
  for row, gold in zip(beam, gold_rows, strict=True):
    if gold != collate.NULL_ROW and gold not in row[:num_read]:
      row[row == gold] = row[num_read - 1]
      row[num_read - 1] = gold
  return beam


class BeamCollator:
  """Supervises the retriever by answer strings, the reader by their spans."""

  def __init__(
    self,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    questions: Questions,
    query_lengths: Int[np.ndarray, "_"],
    *,
    num_devices: int = 1,
    process_index: int = 0,
    process_count: int = 1,
  ) -> None:
    """Plans the shapes that the rows of passages come in.

    Args:
      run: lengths, batch_size, and the beam's sizes.
      corpus: that beams come from.
      tokenizer: the corpus' own.
      questions: with their answers.
      query_lengths: tokens of some questions, the same on every process.
      num_devices: of this process, over which its rows are divided.
      process_index: this process.
      process_count: of the run; each brings the same number of rows.

    Raises:
      ValueError: openqa.read exceeds openqa.beam, or openqa.beam the corpus,
        or the rows do not divide over the devices.
    """
    beam, read = run.openqa.beam, run.openqa.read
    if not read <= beam <= len(corpus):
      raise ValueError(
        f"openqa.read ({read}) <= openqa.beam ({beam}) <= the corpus' "
        f"{len(corpus)} passages does not hold."
      )
    self._run, self._corpus, self._tokenizer = run, corpus, tokenizer
    self._questions = questions
    num_parts = run.optimizer.accumulate_steps
    num_rows = run.batch_size // process_count // num_parts * read
    rows = packing.simulate_found(corpus.lengths, num_rows)
    plan = functools.partial(
      packing.plan,
      multiple=num_devices,
      process_count=process_count,
      num_parts=num_parts,
    )
    kinds = {
      "joint": plan(
        self._joint_lengths(packing.simulate(query_lengths, num_rows), rows),
        run.lengths.joint,
        model_width=run.encoder.hidden_size,
      )
    }
    if run.openqa.train_documents:
      longest = min(corpus.max_pieces, run.lengths.passage)
      kinds["passages"] = plan(
        collate.passage_lengths(corpus, rows, longest),
        longest,
        model_width=run.embedder.bert.hidden_size,
      )
    self._packings = Packings(kinds, process_index)
    self._answer_ids = functools.lru_cache(maxsize=100_000)(self._encode)
    self._rows_of = functools.lru_cache(maxsize=_KEPT_CORPORA)(AnswerRows)

  def over(self, corpus: PassageCorpus) -> "BeamCollator":
    """Returns a collator of the same shapes for another corpus' passages."""
    other = copy.copy(self)
    other._corpus = corpus
    return other

  def _joint_lengths(
    self, query_lengths: np.ndarray, rows: np.ndarray
  ) -> np.ndarray:
    return collate.joint_lengths(
      query_lengths,
      self._corpus,
      rows,
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    )

  def _encode(self, answer: str) -> np.ndarray:
    """Returns the pieces that spell an answer; none if they do not."""
    ids = self._tokenizer.encode(answer).ids
    # An unknown piece stands for any word that is not known.
    return ids if self._tokenizer.unk_id not in ids else ids[:0]

  def _not_spelled(self, question: Question) -> Question:
    """Returns a question with only those answers that no pieces spell."""
    answers = question.answers
    kept = tuple(each for each in answers if not len(self._answer_ids(each)))
    return dataclasses.replace(question, answers=kept)

  def __call__(
    self,
    examples: Batch,
    beam: Int32[np.ndarray, "B C"],
    scored_by: Batch,
  ) -> Batch:
    """Returns an `openqa` batch; the first R of a beam are read.

    Args:
      examples: "query", "index" and "gold_row" (of this collator's corpus) of
        B questions.
      beam: passages, best first.
      scored_by: "beam_embs" f32[B, C, D], their vectors in the index, or
        "beam_scores" f32[B, C].
    """
    questions = [self._questions[int(i)] for i in examples["index"]]
    read = beam[:, : self._run.openqa.read]
    joints = collate.joint_rows(
      collate.repeated(examples["query"], read.shape[1]),
      self._corpus,
      self._tokenizer,
      read.reshape(-1),
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    )
    return {
      "query": examples["query"],
      **scored_by,
      "beam_mask": np.ones(beam.shape, bool),
      **self._pack(joints.rows, read.reshape(-1)),
      # A passage that a question names is right, however it is worded.
      "beam_has_answer": self._rows_of(self._corpus).among(questions, beam)
      | (beam == examples["gold_row"][:, None]),
      "block_mask": joints.block_mask,
      "gold_spans": self._gold_spans(questions, joints, read),
    }

  def shapes(
    self,
    examples: Batch,
    beam: Int32[np.ndarray, "B C"],
    scored_by: Batch,
  ) -> Iterator[Batch]:
    """Yields a batch of every shape there is, to compile for."""
    batch = self(examples, beam, scored_by)
    num_rows = len(batch["block_mask"])
    kinds = {"joint": num_rows}
    if self._run.openqa.train_documents:
      kinds["passages"] = num_rows
    for packed in self._packings.shapes(kinds):
      yield {**batch, **packed}

  def _pack(self, joints: TokenRows, read: np.ndarray) -> Batch:
    """Returns the rows that the step takes packed, in one rung's shapes."""
    rows = {"joint": joints}
    if self._run.openqa.train_documents:
      rows["passages"] = collate.passage_rows(
        self._corpus, self._tokenizer, read, self._run.lengths.passage
      )
    return self._packings.fit(rows)

  def _gold_spans(
    self,
    questions: list[Question],
    joints: collate.JointRows,
    read: Int32[np.ndarray, "B R"],
  ) -> Bool[np.ndarray, "B R T W"]:
    spelled = [[self._answer_ids(a) for a in q.answers] for q in questions]
    others = [self._not_spelled(question) for question in questions]
    num_read = read.shape[1]
    gold = gold_spans(
      joints,
      [answers for answers in spelled for _ in range(num_read)],
      matched_spans(
        [question for question in others for _ in range(num_read)],
        self._corpus,
        self._tokenizer,
        read.reshape(-1),
      ),
      self._run.openqa.max_span,
    )
    return gold.reshape(*read.shape, *gold.shape[1:])
