# SPDX-License-Identifier: Apache-2.0
"""Word pieces to rows of static length (REALM appendix, ORQA's features).

  query    [CLS] query [SEP]
  passage  [CLS] title [SEP] body [SEP]
  joint    [CLS] query [SEP] body [SEP], or with title:
           [CLS] query [SEP] title [SEP] body [SEP]

Segment 1 is the body with its [SEP], and in a joint row the title, too. The
null document is row -1: no title, no body, but every [SEP] of a passage row
and of a joint row without a title. What is too long loses the body's end.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Int, Int32
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.shapes import TokenRows

NULL_ROW = -1
Ids = Int32[np.ndarray, "_"]


def query_row(ids: Ids, tokenizer: Tokenizer, length: int) -> TokenRows:
  """Returns one row [Q]; a longer query loses its end."""
  head = [tokenizer.cls_id, *ids[: length - 2].tolist(), tokenizer.sep_id]
  return _row(head, [], tokenizer, length)


def query_rows(
  ids: Sequence[Ids], tokenizer: Tokenizer, length: int
) -> TokenRows:
  """Returns rows [n, Q] of n queries' pieces."""
  ids = [pieces[: length - 2] for pieces in ids]
  used = np.array([len(pieces) + 2 for pieces in ids])[:, None]
  column = np.arange(length)
  mask = column < used
  flat = np.full(mask.shape, tokenizer.pad_id, np.int32)
  flat[:, 0] = tokenizer.cls_id
  flat[(column > 0) & (column < used - 1)] = np.concatenate(ids)
  flat[column == used - 1] = tokenizer.sep_id
  return TokenRows(ids=flat, segments=np.zeros_like(flat), mask=mask)


def repeated(rows: TokenRows, times: int) -> TokenRows:
  """Returns each row `times` times over, [n * times, T]."""
  return TokenRows(
    ids=np.repeat(rows["ids"], times, axis=0),
    segments=np.repeat(rows["segments"], times, axis=0),
    mask=np.repeat(rows["mask"], times, axis=0),
  )


def passage_row(
  title_ids: Ids, body_ids: Ids, tokenizer: Tokenizer, length: int
) -> TokenRows:
  """Returns one row [P]."""
  sep = tokenizer.sep_id
  head = [tokenizer.cls_id, *title_ids[: length - 3].tolist(), sep]
  body = body_ids[: length - len(head) - 1].tolist()
  return _row(head, [*body, sep], tokenizer, length)


def joint_row(
  query: TokenRows,
  body_ids: Ids,
  tokenizer: Tokenizer,
  length: int,
  title_ids: Ids | None = None,
) -> TokenRows:
  """Returns one row [T].

  Args:
    query: a row [Q] with its special tokens, shorter than `length`.
    body_ids: of the passage; empty for the null document.
    tokenizer: gives the special tokens.
    length: T.
    title_ids: for a reader that sees titles.
  """
  sep = tokenizer.sep_id
  head = query["ids"][query["mask"]].tolist()
  title: list[int] = []
  if title_ids is not None and len(title_ids):
    room = max(0, length - len(head) - 2)
    title = [*title_ids[:room].tolist(), sep] if room else []
  room = max(0, length - len(head) - len(title) - 1)
  tail = [*title, *body_ids[:room].tolist(), sep]
  return _row(head, tail, tokenizer, length)


def _row(
  head: list[int], tail: list[int], tokenizer: Tokenizer, length: int
) -> TokenRows:
  used = len(head) + len(tail)
  ids = np.full(length, tokenizer.pad_id, np.int32)
  ids[:used] = head + tail
  column = np.arange(length)
  mask = column < used
  segments = (mask & (column >= len(head))).astype(np.int32)
  return TokenRows(ids=ids, segments=segments, mask=mask)


class _Parts(NamedTuple):
  """What is taken of some passages, and where their bodies go."""

  title: np.ndarray  # i64[n], pieces of the title.
  body: np.ndarray  # i64[n], pieces of the body.
  source: np.ndarray  # i64[n], where the title starts in corpus.tokens.
  whole_title: np.ndarray  # i64[n], pieces between there and the body.


def passage_lengths(
  corpus: PassageCorpus, rows: Int[np.ndarray, "*n"], longest: int
) -> Int[np.ndarray, "*n"]:
  """Returns how many tokens `passage_rows` makes of each passage."""
  real = np.where(rows >= 0, corpus.lengths[np.maximum(rows, 0)], 0)
  return np.minimum(real + 3, longest)


def passage_rows(
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  rows: Int[np.ndarray, "n"],
  length: int,
) -> TokenRows:
  """Returns passages as the retriever reads them, [n, length]."""
  parts = _take(corpus, rows, with_title=True)
  title = np.minimum(parts.title, length - 3)
  body = np.minimum(parts.body, length - 3 - title)
  ids = np.full((len(rows), length), tokenizer.pad_id, np.int32)
  line = np.arange(len(rows))
  ids[:, 0] = tokenizer.cls_id
  ids[line, 1 + title] = tokenizer.sep_id
  ids[line, 2 + title + body] = tokenizer.sep_id
  _copy(corpus, ids, np.ones_like(title), parts.source, title)
  _copy(corpus, ids, 2 + title, parts.source + parts.whole_title, body)
  column = np.arange(length)
  mask = column < (3 + title + body)[:, None]
  segments = mask & (column >= (2 + title)[:, None])
  return TokenRows(ids=ids, segments=segments.astype(np.int32), mask=mask)


def joint_lengths(
  query_lengths: Int[np.ndarray, "*n"],
  corpus: PassageCorpus,
  rows: Int[np.ndarray, "*n"],
  longest: int,
  *,
  with_title: bool,
) -> Int[np.ndarray, "*n"]:
  """Returns how many tokens `joint_rows` makes of each query and passage."""
  parts = _take(corpus, rows, with_title=with_title)
  title = parts.title + (parts.title > 0)
  return np.minimum(query_lengths + title + parts.body + 1, longest)


class JointRows(NamedTuple):
  """Joint rows, and where the passages' bodies lie in them."""

  rows: TokenRows  # [n, T]
  body_starts: np.ndarray  # i32[n]
  body_lengths: np.ndarray  # i32[n]

  @property
  def block_mask(self) -> Bool[np.ndarray, "n T"]:
    """True at the pieces of a body, where answers are."""
    column = np.arange(self.rows["ids"].shape[1])
    start = self.body_starts[:, None]
    return (column >= start) & (column < start + self.body_lengths[:, None])


def joint_rows(
  queries: TokenRows,
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  rows: Int[np.ndarray, "n"],
  length: int,
  *,
  with_title: bool,
) -> JointRows:
  """Returns each query with one passage, as the reader reads them.

  Args:
    queries: n query rows, each shorter than `length`.
    corpus: holds the passages.
    tokenizer: gives the special tokens.
    rows: a passage for each query, or NULL_ROW.
    length: of the joint rows.
    with_title: put the title before the body.
  """
  parts = _take(corpus, rows, with_title=with_title)
  query = queries["mask"].sum(axis=1)  # [n]
  title = np.minimum(parts.title, np.maximum(length - query - 2, 0))
  has_title = (title > 0).astype(np.int64)
  body_start = query + title + has_title
  body = np.clip(parts.body, 0, length - body_start - 1)
  ids = np.full((len(rows), length), tokenizer.pad_id, np.int32)
  shared = min(length, queries["ids"].shape[1])
  ids[:, :shared] = queries["ids"][:, :shared]
  line = np.arange(len(rows))
  ids[line, body_start - has_title] = tokenizer.sep_id
  ids[line, body_start + body] = tokenizer.sep_id
  _copy(corpus, ids, query, parts.source, title)
  _copy(corpus, ids, body_start, parts.source + parts.whole_title, body)
  column = np.arange(length)
  mask = column < (body_start + body + 1)[:, None]
  segments = mask & (column >= query[:, None])
  joint = TokenRows(ids=ids, segments=segments.astype(np.int32), mask=mask)
  return JointRows(joint, body_start.astype(np.int32), body.astype(np.int32))


def _take(
  corpus: PassageCorpus, rows: np.ndarray, *, with_title: bool
) -> _Parts:
  real = rows >= 0
  safe = np.maximum(rows, 0)
  whole_title = corpus.title_lengths[safe].astype(np.int64)
  body = np.where(real, corpus.lengths[safe] - whole_title, 0)
  title = np.where(real & with_title, whole_title, 0)
  return _Parts(title, body, corpus.offsets[safe], whole_title)


def _copy(
  corpus: PassageCorpus,
  ids: np.ndarray,
  columns: np.ndarray,
  sources: np.ndarray,
  lengths: np.ndarray,
) -> None:
  """Copies `lengths[i]` pieces from `sources[i]` to `ids[i, columns[i]:]`.

  One gather for all rows: this runs for B * K rows ahead of every step.
  """
  ends = np.cumsum(lengths)
  within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(
    ends - lengths, lengths
  )
  targets = np.arange(len(ids)) * ids.shape[1] + columns
  flat = ids.reshape(-1)
  flat[np.repeat(targets, lengths) + within] = corpus.tokens[
    np.repeat(sources, lengths) + within
  ]
