# SPDX-License-Identifier: Apache-2.0
"""Rows of unequal length, several to a line, in a few static shapes.

A compiled step takes one shape; a batch's rows have as many lengths as rows.
Rows are therefore laid end to end on lines of one width, and the number of
lines comes from a short ladder that is fixed when the run starts.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import math

from jaxtyping import Int
import numpy as np

from realm_jax.shapes import PackedRows, TokenRows

LENGTH_STEP = 8  # Static lengths are multiples of it: tiles stay full.
# Rows on a line at most: each is a place in the arrays of a line's rows.
SLOTS = 4
# Share of simulated batches that fit on the first rungs' lines.
_RUNGS = (0.5, 0.9)
# And so the share of batches that each rung gets; the last is for the rest.
RUNG_SHARES = (0.5, 0.4, 0.1, 0.0)
# Widths to try, in longest rows. Wider lines waste less of their ends and
# more on attention between places of different rows.
_WIDTHS = (1.0, 1.25, 1.5, 2.0)
SIMULATED_BATCHES = 200


@dataclasses.dataclass(frozen=True)
class Packing:
  """The shapes that one kind of rows comes in."""

  width: int  # Of a line, in tokens.
  rungs: tuple[int, ...]  # Lines of a part, rung by rung.
  num_parts: int = 1  # Of a batch; the step computes them one by one.

  def first_fit(self, lengths: Int[np.ndarray, "n"]) -> int:
    """Returns the first, and cheapest, rung that holds rows of `lengths`.

    Raises:
      ValueError: a row is longer than a line, or there are more rows than
        the packing was planned for.
    """
    if lengths.max() > self.width:
      raise ValueError(
        f"A row of {lengths.max()} tokens exceeds a line of {self.width}."
      )
    needed = self._lines(lengths).max() + 1
    for rung, lines in enumerate(self.rungs):
      if needed <= lines:
        return rung
    raise ValueError(
      f"{len(lengths)} rows need {needed} lines, and the packing was planned "
      f"for {self.rungs[-1]} at most."
    )

  def _lines(self, lengths: Int[np.ndarray, "n"]) -> Int[np.ndarray, "p m"]:
    """Returns the line of each row, by parts."""
    return assign_lines(lengths.reshape(self.num_parts, -1), self.width)

  def fit(self, rows: TokenRows, process_index: int = 0) -> PackedRows:
    """Packs rows [n, T] onto the fewest lines that there is a shape for."""
    rung = self.first_fit(rows["mask"].sum(axis=1))
    return self.pack(rows, rung, process_index)

  def shapes(self, num_rows: int) -> Iterator[PackedRows]:
    """Yields as many rows of one token in every shape that there is."""
    zeros = np.zeros((num_rows, 1), np.int32)
    rows = TokenRows(ids=zeros, segments=zeros, mask=zeros == 0)
    for rung in range(len(self.rungs)):
      yield self.pack(rows, rung)

  def pack(
    self,
    rows: TokenRows,
    rung: int,
    process_index: int = 0,
  ) -> PackedRows:
    """Lays rows [n, T] out on the lines of a rung.

    Args:
      rows: of this process.
      rung: from `first_fit`; the same on every process.
      process_index: whose rows these are. Every process brings as many
        lines; those of all are concatenated, and `order` points into the
        whole. So it does for each of several parts: the first n / parts rows
        are the first part, on the first of the lines.
    """
    mask = rows["mask"]
    lengths = mask.sum(axis=1)
    in_part = self._lines(lengths)
    part_lines = self.rungs[rung]
    first_lines = part_lines * np.arange(self.num_parts)[:, None]
    lines = (first_lines + in_part).reshape(-1)
    slots, starts = _places(lines, lengths)
    shape = (self.num_parts * part_lines, self.width)
    owner = np.broadcast_to(slots[:, None] + 1, mask.shape)
    to = (lines * self.width + starts)[:, None] + np.arange(mask.shape[1])

    def lay(values: np.ndarray) -> np.ndarray:
      laid = np.zeros(shape, np.int32)
      laid.reshape(-1)[to[mask]] = values[mask]
      return laid

    slot_starts = np.zeros((shape[0], SLOTS), np.int32)
    slot_starts[lines, slots] = starts
    in_whole = part_lines * process_index + in_part.reshape(-1)
    return PackedRows(
      ids=lay(rows["ids"]),
      segments=lay(rows["segments"]),
      mask=lay(owner),
      starts=slot_starts,
      order=(in_whole * SLOTS + slots).astype(np.int32),
    )


class Packings:
  """Several kinds of a batch's rows, always on the same rung of each.

  So there are as many shapes of batch as rungs, whatever the kinds.
  """

  def __init__(
    self, kinds: Mapping[str, Packing], process_index: int = 0
  ) -> None:
    """Takes a packing for each kind of rows; all have as many rungs."""
    self._kinds, self._process_index = kinds, process_index

  @property
  def num_rungs(self) -> int:
    """How many rungs, and so shapes of batch, there are."""
    return min(len(packing.rungs) for packing in self._kinds.values())

  def fit(self, rows: Mapping[str, TokenRows]) -> dict[str, PackedRows]:
    """Packs rows [n, T] of each kind onto the first rung that holds all."""
    rung = max(
      self._kinds[kind].first_fit(each["mask"].sum(axis=1))
      for kind, each in rows.items()
    )
    return self.pack(rows, rung)

  def pack(
    self, rows: Mapping[str, TokenRows], rung: int
  ) -> dict[str, PackedRows]:
    """Packs rows [n, T] of each kind onto a rung that holds them."""
    return {
      kind: self._kinds[kind].pack(each, rung, self._process_index)
      for kind, each in rows.items()
    }

  def shapes(
    self, num_rows: Mapping[str, int]
  ) -> Iterator[dict[str, PackedRows]]:
    """Yields as many rows of one token of each kind, rung by rung."""
    kinds = [self._kinds[kind].shapes(n) for kind, n in num_rows.items()]
    for packed in zip(*kinds, strict=True):
      yield dict(zip(num_rows, packed, strict=True))


def _places(
  lines: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns each row's number on its line, and the token it starts at."""
  by_line = np.argsort(lines, kind="stable")
  firsts = np.searchsorted(lines[by_line], lines[by_line])
  slots, starts = np.empty_like(lines), np.empty_like(lines)
  slots[by_line] = np.arange(len(lines)) - firsts
  before = np.cumsum(lengths[by_line]) - lengths[by_line]
  starts[by_line] = before - before[firsts]
  return slots, starts


def assign_lines(
  lengths: Int[np.ndarray, "s n"], width: int
) -> Int[np.ndarray, "s n"]:
  """Returns a line for each row of s batches: first fit, longest first.

  Never more than 11/9 of the fewest lines possible, and one (Dosa, 2007),
  where `SLOTS` does not bind.
  """
  num_batches, num_rows = lengths.shape
  batch = np.arange(num_batches)
  room = np.full(lengths.shape, width)
  slots = np.full(lengths.shape, SLOTS)
  lines = np.empty(lengths.shape, np.int64)
  longest_first = np.argsort(-lengths, axis=1, kind="stable")
  used = 0
  for row in longest_first.T:
    length = lengths[batch, row]
    # One line beyond those in use is empty, and holds any row.
    fits = room[:, : used + 1] >= length[:, None]
    line = np.argmax(fits & (slots[:, : used + 1] > 0), axis=1)
    lines[batch, row] = line
    room[batch, line] -= length
    slots[batch, line] -= 1
    used = min(max(used, line.max() + 1), num_rows - 1)
  return lines


def plan(
  simulated: Int[np.ndarray, "s n"],
  longest: int,
  *,
  model_width: int,
  multiple: int,
  process_count: int = 1,
  num_parts: int = 1,
) -> Packing:
  """Chooses the width and the rungs from batches as they are expected.

  Args:
    simulated: row lengths of s batches, or of s parts of them.
    longest: that a row may be; the last rung has room for n such rows.
    model_width: H, which decides what attention costs beside the rest.
    multiple: of which every rung is a multiple: the devices.
    process_count: of the run. Several must take one shape, and do not ask
      each other for theirs before each step: they have the last rung alone.
    num_parts: of a batch, each as large as the simulated ones.

  Raises:
    ValueError: the rows of a batch do not divide over the devices.
  """
  num_rows = simulated.shape[1]
  if num_rows % multiple:
    raise ValueError(
      f"{num_rows} rows (batch_size * retrieval.num_candidates, this "
      f"process' share) do not divide over {multiple} devices."
    )

  @functools.cache
  def lines_needed(width: int) -> np.ndarray:
    return assign_lines(simulated, width).max(axis=1) + 1

  def cost(width: int) -> float:
    # A token's products: 24 H^2 by weights, 4 H by each of its line's tokens.
    return lines_needed(width).mean() * width * (1 + width / (6 * model_width))

  widths = {round_up(share * longest) for share in _WIDTHS}
  width = min(sorted(widths), key=cost)
  rungs = [np.quantile(lines_needed(width), share) for share in _RUNGS]
  most = -(-num_rows // min(width // longest, SLOTS))
  # Retrieval may prefer longer passages than chance does: one more rung
  # before there is room for nothing but the longest.
  rungs.append(rungs[-1] + (most - rungs[-1]) / 3)
  rungs.append(most)
  if process_count > 1:
    rungs = rungs[-1:]
  return Packing(
    width,
    tuple(multiple * math.ceil(math.ceil(lines) / multiple) for lines in rungs),
    num_parts,
  )


def simulate(
  lengths: Int[np.ndarray, "_"], num_rows: int
) -> Int[np.ndarray, "s n"]:
  """Draws batches of rows as long as some are."""
  # Fixed: every process, and a resumed run, must plan the same shapes.
  rng = np.random.default_rng(0)
  return rng.choice(lengths, size=(SIMULATED_BATCHES, num_rows))


def simulate_found(
  lengths: Int[np.ndarray, "passages"], num_rows: int
) -> Int[np.ndarray, "s n"]:
  """Draws batches of passages as they are found, or named, for questions.

  Every other batch is of passages by chance, and the rest of passages as
  likely as they are long: so they are where each holds an answer.
  """
  rng = np.random.default_rng(0)  # As in `simulate`.
  shape = (SIMULATED_BATCHES, num_rows)
  rows = rng.integers(len(lengths), size=shape)
  longer = rng.choice(len(lengths), size=shape, p=lengths / lengths.sum())
  rows[1::2] = longer[1::2]
  return rows


def round_up(length: int | float) -> int:
  """Returns the next static length that holds `length`."""
  return -(-math.ceil(length) // LENGTH_STEP) * LENGTH_STEP
