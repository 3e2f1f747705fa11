# SPDX-License-Identifier: Apache-2.0
"""Retrieved passages to the batch of a REALM step (REALM sections 3.3-3.4)."""

from collections.abc import Iterator
import copy
from typing import NamedTuple

from jaxtyping import Int
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate, own_words, packing
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.shapes import Batch

_MASKED = ("positions", "targets", "target_mask")


class Candidates(NamedTuple):
  """Passages for each query, the null document not among them."""

  rows: np.ndarray  # i32[B, K-1]; 0 where there is none.
  mask: np.ndarray  # bool[B, K-1]: True where there is one.


def choose_candidates(
  neighbor_ids: Int[np.ndarray, "B k"],
  source_rows: Int[np.ndarray, "B"],
  num_candidates: int,
) -> Candidates:
  """Picks the K-1 best neighbours that a query may see.

  Left out are the passage that the text was taken from, whose words would
  give the mask away, and repetitions. A query with too few keeps what there
  is: no query is dropped.

  Args:
    neighbor_ids: rows of the corpus, best first; negative for none. Ask the
      index for K of them: one may be the own passage.
    source_rows: the passage to leave out, or -1.
    num_candidates: K.
  """
  own = neighbor_ids == source_rows[:, None]
  same = neighbor_ids[:, :, None] == neighbor_ids[:, None, :]  # [B, k, k]
  repeated = np.tril(same, k=-1).any(axis=-1)
  keep = (neighbor_ids >= 0) & ~own & ~repeated
  best = np.argsort(~keep, axis=1, kind="stable")[:, : num_candidates - 1]
  mask = np.take_along_axis(keep, best, axis=1)
  rows = np.where(mask, np.take_along_axis(neighbor_ids, best, axis=1), 0)
  missing = num_candidates - 1 - rows.shape[1]
  widths = ((0, 0), (0, missing))
  return Candidates(np.pad(rows, widths).astype(np.int32), np.pad(mask, widths))


class RealmCollator:
  """Makes REALM batches in a few shapes, fixed at the start."""

  def __init__(
    self,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    query_lengths: Int[np.ndarray, "_"],
    *,
    num_devices: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> None:
    """Plans the shapes.

    Args:
      run: lengths, batch_size, candidates, and what the reader sees.
      corpus: that candidates come from, or (see `over`) of passages as long
        as any that may come.
      tokenizer: the corpus' own.
      query_lengths: tokens of some queries as they will come, special tokens
        included; the same on every process.
      num_devices: of this process, over which its rows are divided.
      process_index: this process.
      process_count: of the run; each brings the same number of rows.

    Raises:
      ValueError: the rows do not divide over the devices, or the tokenizer is
        not the corpus'.
    """
    corpus.check_tokenizer(tokenizer)
    self._run, self._corpus, self._tokenizer = run, corpus, tokenizer
    self._num_queries = num_queries = run.batch_size // process_count
    num_parts = run.optimizer.accumulate_steps
    rows, queries = self._simulate(query_lengths, num_queries // num_parts)
    with_title = run.data.reader_sees_title
    # Any passage that an edited corpus may have, and its title's [SEP].
    longest = run.lengths.query + corpus.max_pieces - 2 + with_title
    passages = packing.plan(
      self._passage_lengths(rows),
      min(corpus.max_pieces, run.lengths.passage),
      model_width=run.embedder.bert.hidden_size,
      multiple=num_devices,
      process_count=process_count,
      num_parts=num_parts,
    )
    joints = packing.plan(
      self._joint_lengths(queries, rows),
      min(longest, run.lengths.joint),
      model_width=run.encoder.hidden_size,
      multiple=num_devices,
      process_count=process_count,
      num_parts=num_parts,
    )
    self._packings = packing.Packings(
      {"passages": passages, "joints": joints}, process_index
    )

  def _simulate(
    self, query_lengths: np.ndarray, num_queries: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws batches: [s, B * K] passages, and the lengths of their queries."""
    num_candidates = self._run.retrieval.num_candidates
    shape = (packing.SIMULATED_BATCHES, num_queries, num_candidates)
    # Fixed: every process, and a resumed run, must plan the same shapes.
    rng = np.random.default_rng(0)
    rows = rng.integers(len(self._corpus), size=shape)
    # Passages on one matter are alike in length, too, so batches vary more
    # than with independent ones: here half of a query's are of one length.
    rows[:, :, 1::2] = rows[:, :, :1]
    rows[:, :, 0] = collate.NULL_ROW
    queries = rng.choice(query_lengths, size=(*shape[:2], 1))
    queries = np.broadcast_to(queries, shape)
    flat = (packing.SIMULATED_BATCHES, -1)
    return rows.reshape(flat), queries.reshape(flat)

  def _passage_lengths(self, rows: np.ndarray) -> np.ndarray:
    longest = self._run.lengths.passage
    return collate.passage_lengths(self._corpus, rows, longest)

  def _joint_lengths(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return collate.joint_lengths(
      queries,
      self._corpus,
      rows,
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    )

  def over(self, corpus: PassageCorpus) -> "RealmCollator":
    """Returns a collator of the same shapes for another corpus' passages."""
    other = copy.copy(self)
    other._corpus = corpus
    return other

  @property
  def num_shapes(self) -> int:
    """How many shapes of batch there are; a rung is one of them."""
    return self._packings.num_rungs

  def batch(
    self, examples: Batch, candidates: Candidates, rung: int | None = None
  ) -> Batch:
    """Returns a `realm` batch, candidate 0 being the null document.

    Args:
      examples: "query" and the masked positions, of B texts (this process').
      candidates: the other K-1 for each.
      rung: that holds all rows; by default the first, and cheapest, that does.
    """
    rows = self._all_rows(candidates)  # [B * K]
    queries = examples["query"]
    num_candidates = self._run.retrieval.num_candidates
    passages = collate.passage_rows(
      self._corpus, self._tokenizer, rows, self._run.lengths.passage
    )
    joints = collate.joint_rows(
      collate.repeated(queries, num_candidates),
      self._corpus,
      self._tokenizer,
      rows,
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    ).rows
    kinds = {"passages": passages, "joints": joints}
    has_null = np.ones((len(candidates.mask), 1), bool)
    return {
      "query": queries,
      **(
        self._packings.fit(kinds)
        if rung is None
        else self._packings.pack(kinds, rung)
      ),
      "candidate_mask": np.concatenate([has_null, candidates.mask], axis=1),
      "own_words": self._own_words(examples, candidates),
      **{name: examples[name] for name in _MASKED},
    }

  def _own_words(self, examples: Batch, candidates: Candidates) -> np.ndarray:
    """Returns bool[B, K]: True where a passage holds the text's own words."""
    rows = np.where(candidates.mask, candidates.rows, collate.NULL_ROW)
    found = own_words.holds_words(examples, self._tokenizer, self._corpus, rows)
    return np.pad(found, ((0, 0), (1, 0)))  # The null document has none.

  def __call__(self, examples: Batch, candidates: Candidates) -> Batch:
    """Returns the `realm` batch in the cheapest shape that fits."""
    return self.batch(examples, candidates)

  def dummy_batches(self) -> Iterator[Batch]:
    """Yields a batch of every shape there is, to compile for."""
    run = self._run
    num_queries = self._num_queries
    num_others = run.retrieval.num_candidates - 1
    nothing = np.zeros(0, np.int32)
    masked = (num_queries, run.lengths.masks)
    examples: Batch = {
      "query": collate.query_rows(
        [nothing] * num_queries, self._tokenizer, run.lengths.query
      ),
      "positions": np.zeros(masked, np.int32),
      "targets": np.zeros(masked, np.int32),
      "target_mask": np.zeros(masked, bool),
    }
    candidates = Candidates(
      np.full((num_queries, num_others), collate.NULL_ROW, np.int32),
      np.zeros((num_queries, num_others), bool),
    )
    for rung in range(self.num_shapes):
      yield self.batch(examples, candidates, rung)

  def _all_rows(self, candidates: Candidates) -> np.ndarray:
    null = np.full((len(candidates.rows), 1), collate.NULL_ROW, np.int32)
    return np.concatenate([null, candidates.rows], axis=1).reshape(-1)
