# SPDX-License-Identifier: Apache-2.0
"""Shapes of a run's batches: as its data have them, or without any data."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from etils import epath
import jax
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data.closed_book import closed_book_length
from realm_jax.data.packing import RUNG_SHARES, SLOTS
from realm_jax.shapes import Batch
from realm_jax.train.stages import open_stage


@dataclasses.dataclass(frozen=True)
class Batches:
  """A run's largest batch, and what is typical.

  Attributes:
    largest: shapes of this process' share.
    typical: tokens of a batch in the mean, over those of the largest.
    source: in words, where the shapes come from.
  """

  largest: Batch
  typical: float
  source: str


def batches_of(run: RunConfig, num_devices: int, num_hosts: int) -> Batches:
  """Returns the shapes that training will use, or those of full rows.

  Args:
    run: the config.
    num_devices: over which its rows divide.
    num_hosts: of the run. Several take the largest shape alone.

  Raises:
    ValueError: the data are there and do not fit the config.
  """
  missing = run.data.corpus or "data.corpus"
  if run.data.corpus and epath.Path(run.data.corpus).exists():
    try:
      stage = open_stage(run, num_devices)
      return _of_shapes(list(stage.shapes()), num_hosts)
    except FileNotFoundError as error:
      missing = str(error.filename or error)
  return Batches(
    full_rows(run), 1.0, f"full rows, as {missing} is not there to look at"
  )


def _of_shapes(shapes: Sequence[Batch], num_hosts: int) -> Batches:
  largest = max(shapes, key=_num_tokens)
  typical = 1.0
  if num_hosts == 1 and len(shapes) == len(RUNG_SHARES):
    mean = sum(
      share * _num_tokens(shape)
      for share, shape in zip(RUNG_SHARES, shapes, strict=True)
    )
    typical = mean / _num_tokens(largest)
  return Batches(
    jax.tree.map(lambda leaf: _array(leaf.shape, leaf.dtype), largest),
    typical,
    "the run's data",
  )


def _num_tokens(batch: Batch) -> int:
  """Returns the places for tokens in a batch, padding included."""
  return sum(
    math.prod(each["ids"].shape)
    for each in batch.values()
    if isinstance(each, dict)
  )


def full_rows(run: RunConfig) -> Batch:
  """Returns a batch's shapes where each row is as long as it may be."""
  lengths, openqa = run.lengths, run.openqa
  num = run.batch_size
  if run.stage in ("ict", "dpr"):
    negatives = run.dpr.negatives if run.stage == "dpr" else 0
    passages = num * (1 + negatives)
    pairs: Batch = {
      "query": _packed(num * run.queries_together, lengths.query),
      "passage": _packed(passages, lengths.passage),
    }
    if run.stage == "dpr":
      pairs["passage_row"] = _array((passages,), np.int32)
    return pairs
  if run.stage == "mlm":
    return {"joint": _packed(num, lengths.joint), **_masked(num, lengths.masks)}
  if run.stage == "realm":
    candidates = run.retrieval.num_candidates
    return {
      "query": _rows(num, lengths.query),
      "passages": _packed(num * candidates, lengths.passage),
      "joints": _packed(num * candidates, lengths.joint),
      "candidate_mask": _array((num, candidates), np.bool_),
      "own_words": _array((num, candidates), np.bool_),
      **_masked(num, lengths.masks),
    }
  if run.is_closed_book:
    joint = _packed(num, closed_book_length(run))
    return {"joint": joint, **_masked(num, openqa.max_span)}
  return _openqa(run)


def _openqa(run: RunConfig) -> Batch:
  lengths, openqa = run.lengths, run.openqa
  num, dense = run.batch_size, run.has_retriever
  beam = openqa.beam if dense else openqa.read
  read = num * openqa.read
  spans = (num, openqa.read, lengths.joint, openqa.max_span)
  scored_by = (
    {"beam_embs": _array((num, beam, run.embedder.dim), np.float32)}
    if dense
    else {"beam_scores": _array((num, beam), np.float32)}
  )
  passages = (
    {"passages": _packed(read, lengths.passage)}
    if openqa.train_documents
    else {}
  )
  return {
    "query": _rows(num, lengths.query),
    **scored_by,
    "beam_mask": _array((num, beam), np.bool_),
    "joint": _packed(read, lengths.joint),
    **passages,
    "beam_has_answer": _array((num, beam), np.bool_),
    "block_mask": _array((read, lengths.joint), np.bool_),
    "gold_spans": _array(spans, np.bool_),
  }


def _masked(num: int, masks: int) -> Batch:
  return {
    "positions": _array((num, masks), np.int32),
    "targets": _array((num, masks), np.int32),
    "target_mask": _array((num, masks), np.bool_),
  }


def _rows(num: int, length: int) -> Any:
  ids = _array((num, length), np.int32)
  return {"ids": ids, "segments": ids, "mask": _array(ids.shape, np.bool_)}


def _packed(num: int, length: int) -> Any:
  """Returns `PackedRows` with a row on each line."""
  ids = _array((num, length), np.int32)
  return {
    **dict.fromkeys(("ids", "segments", "mask"), ids),
    "starts": _array((num, SLOTS), np.int32),
    "order": _array((num,), np.int32),
  }


def _array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)
