# SPDX-License-Identifier: Apache-2.0
"""Which pieces of a text are masked and predicted (REALM section 3.4)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from jaxtyping import Int32
import numpy as np

from realm_jax.data.tokenize import Encoding

Masking = Literal["salient", "span", "token"]
_SPAN_STOP = 0.4  # Random spans: words are geometric, 2.5 in the mean.
_TOKEN_RATE = 0.15  # Random tokens: BERT's share.


class Masked(NamedTuple):
  """A masked text and what was there."""

  ids: np.ndarray  # i32[n], [MASK] where masked.
  positions: np.ndarray  # i32[M], places in `ids`; 0 where there is none.
  targets: np.ndarray  # i32[M], the pieces that were there.
  target_mask: np.ndarray  # bool[M]


def mask_pieces(
  ids: Int32[np.ndarray, "n"],
  chosen: Int32[np.ndarray, "_"],
  mask_id: int,
  num_predicted: int,
) -> Masked:
  """Masks the chosen pieces, and predicts the first M of them.

  All of a long span is masked, or its rest would give the answer away.
  """
  predicted = chosen[:num_predicted]
  positions = np.zeros(num_predicted, np.int32)
  targets = np.zeros(num_predicted, np.int32)
  positions[: len(predicted)] = predicted
  targets[: len(predicted)] = ids[predicted]
  masked = ids.copy()
  masked[chosen] = mask_id
  target_mask = np.arange(num_predicted) < len(predicted)
  return Masked(masked, positions, targets, target_mask)


def choose_pieces(
  scheme: Masking,
  encoding: Encoding,
  spans: Sequence[tuple[int, int]],
  num_predicted: int,
  rng: np.random.Generator,
) -> Int32[np.ndarray, "_"]:
  """Returns the places of the pieces to mask, one or more, ascending.

  Args:
    scheme: "salient": one of `spans`, each as likely as the others, and a
      random span where none holds a piece; "span": a few whole words;
      "token": pieces anywhere.
    encoding: the text, already cut to what fits the query; not empty.
    spans: (start, end) in characters.
    num_predicted: M, which random pieces do not exceed.
    rng: draws.
  """
  if scheme == "salient":
    candidates = [
      pieces
      for pieces in (pieces_of(encoding, span) for span in spans)
      if pieces.size
    ]
    if candidates:
      return candidates[rng.integers(len(candidates))]
  if scheme == "token":
    count = round(_TOKEN_RATE * len(encoding))
    count = min(max(1, count), num_predicted)
    chosen = rng.choice(len(encoding), size=count, replace=False)
    return np.sort(chosen).astype(np.int32)
  return _random_span(encoding, num_predicted, rng)


def pieces_of(
  encoding: Encoding, span: tuple[int, int]
) -> Int32[np.ndarray, "_"]:
  """Returns the pieces inside a span; none if it leaves the encoding."""
  start, end = span
  leaves = (
    len(encoding) == 0 or start < encoding.starts[0] or end > encoding.ends[-1]
  )
  if leaves:
    return np.zeros(0, np.int32)
  inside = (encoding.starts >= start) & (encoding.ends <= end)
  return np.flatnonzero(inside).astype(np.int32)


def _random_span(
  encoding: Encoding, num_predicted: int, rng: np.random.Generator
) -> Int32[np.ndarray, "_"]:
  gaps = encoding.starts[1:] > encoding.ends[:-1]
  words = np.append(0, np.flatnonzero(gaps) + 1)
  first = int(rng.integers(len(words)))
  last = min(first + int(rng.geometric(_SPAN_STOP)), len(words))
  end = len(encoding) if last == len(words) else int(words[last])
  start = int(words[first])
  end = min(end, start + num_predicted)
  return np.arange(start, end, dtype=np.int32)
