# SPDX-License-Identifier: Apache-2.0
"""Which passages hold a text's own words, and so give its mask away.

REALM leaves out the passage that a text came from, by its uid. That misses
the same words under another uid: text that was cut elsewhere, printed twice
or lightly edited. Here words are compared, as runs of a few pieces
(shingles): a passage holds a text's words if it has most of its shingles.

Nothing is kept beside the corpus. Its pieces are in memory anyway, to be
collated, and a batch's shingles are hashed in milliseconds; sketches of all
passages would cost gigabytes, and say nothing sure of a sentence's few words.
"""

from jaxtyping import Bool, Float32, Int, Integer, UInt64
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.shapes import Batch

# Pieces of a shingle: about four words, which seldom recur by chance.
SHINGLE = 5
# A passage that holds half of a text's shingles holds its words.
LEAK = 0.5
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # Odd, and its bits are well mixed.
_FILTER_BITS = 20


def held_shares(
  examples: Batch,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  rows: Int[np.ndarray, "B k"],
) -> Float32[np.ndarray, "B k"]:
  """Returns what share of each text's shingles each passage's body has.

  The text is as it was before it was masked. Where more was masked than is
  predicted, shingles with what stays unknown do not count. A text of fewer
  pieces than a shingle has a share of 0.

  Args:
    examples: "query" rows [B, Q], "positions", "targets" and "target_mask".
    tokenizer: the corpus' own.
    corpus: has the passages.
    rows: of the corpus; negative for none, whose share is 0.
  """
  wanted = _text_shingles(examples, tokenizer)
  shares = np.zeros(rows.shape, np.float32)
  places = np.argwhere(rows >= 0)
  if len(wanted.hashes) == 0 or len(places) == 0:
    return shares
  hashes, pair = _passage_shingles(corpus, rows[tuple(places.T)])
  # Most are of no text: a table of bits tells at once.
  shift = np.uint64(64 - _FILTER_BITS)
  known = np.zeros(1 << _FILTER_BITS, bool)
  known[wanted.hashes >> shift] = True
  maybe = np.flatnonzero(known[hashes >> shift])
  # The query is part of the key: another query's shingle is none of this one.
  key = _of_query(hashes[maybe], places[pair[maybe], 0])
  at = np.minimum(np.searchsorted(wanted.keys, key), len(wanted.keys) - 1)
  right = wanted.keys[at] == key
  # A shingle that the passage has twice counts once.
  found = np.unique(pair[maybe][right] * len(wanted.keys) + at[right])
  held = np.bincount(found // len(wanted.keys), minlength=len(places))
  query = places[:, 0]
  shares[tuple(places.T)] = held / np.maximum(wanted.counts[query], 1)
  return shares


def holds_words(
  examples: Batch,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  rows: Int[np.ndarray, "B k"],
) -> Bool[np.ndarray, "B k"]:
  """Returns which passages hold at least `LEAK` of a text's shingles."""
  return held_shares(examples, tokenizer, corpus, rows) >= LEAK


class _Texts:
  """The distinct shingles of a batch's texts."""

  def __init__(
    self,
    hashes: UInt64[np.ndarray, "n"],
    query: Int[np.ndarray, "n"],
    size: int,
  ) -> None:
    keys, first = np.unique(_of_query(hashes, query), return_index=True)
    self.keys = keys
    self.hashes = hashes[first]
    self.counts = np.bincount(query[first], minlength=size)  # By query.


def _text_shingles(examples: Batch, tokenizer: Tokenizer) -> _Texts:
  query, keep = examples["query"], examples["target_mask"]
  ids = query["ids"].copy()
  line = np.broadcast_to(np.arange(len(ids))[:, None], keep.shape)
  ids[line[keep], examples["positions"][keep]] = examples["targets"][keep]
  real = query["mask"] & ~np.isin(ids, _specials(tokenizer))
  hashes = _hashes(ids.reshape(-1))
  # All pieces of a shingle are the text's own, and known.
  whole = np.lib.stride_tricks.sliding_window_view(real, SHINGLE, axis=1)
  line, place = np.nonzero(whole.all(axis=-1))
  return _Texts(hashes[line * ids.shape[1] + place], line, len(ids))


def _specials(tokenizer: Tokenizer) -> list[int]:
  return [tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]


def _passage_shingles(
  corpus: PassageCorpus, rows: Int[np.ndarray, "n"]
) -> tuple[UInt64[np.ndarray, "s"], Int[np.ndarray, "s"]]:
  """Returns the shingles of bodies, and which of `rows` each is of."""
  starts = corpus.offsets[rows] + corpus.title_lengths[rows]
  lengths = corpus.offsets[rows + 1] - starts
  bodies = [
    corpus.tokens[start : start + length]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
  ]
  hashes = _hashes(np.concatenate(bodies))
  row = np.repeat(np.arange(len(rows)), lengths)
  # What reaches into the next body is no shingle.
  inside = row[: len(hashes)] == row[len(row) - len(hashes) :]
  return hashes[inside], row[: len(hashes)][inside]


def _hashes(ids: Integer[np.ndarray, "n"]) -> UInt64[np.ndarray, "s"]:
  """Returns a hash of each run of `SHINGLE` pieces."""
  pieces = ids.astype(np.uint64)
  count = max(0, len(pieces) - SHINGLE + 1)
  mixed = np.zeros(count, np.uint64)
  for place in range(SHINGLE):
    mixed = (mixed + pieces[place : place + count]) * _FACTOR
    mixed ^= mixed >> np.uint64(32)
  return mixed


def _of_query(
  hashes: UInt64[np.ndarray, "n"], query: Int[np.ndarray, "n"]
) -> UInt64[np.ndarray, "n"]:
  return (hashes ^ (query.astype(np.uint64) + np.uint64(1))) * _FACTOR
