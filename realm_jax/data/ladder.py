# SPDX-License-Identifier: Apache-2.0
"""Rows of unequal length in a few static shapes, with little padding.

A compiled step takes one shape; a batch's rows have as many lengths as rows.
Rows are therefore sorted by length into rectangles, and the rectangles'
lengths come from a short ladder of shapes that is fixed when the run starts.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

from jaxtyping import Int
import numpy as np

from realm_jax.shapes import RaggedRows, TokenRows

LENGTH_STEP = 8  # Static lengths are multiples of it: tiles stay full.
# Share of simulated batches whose rectangle fits the first rungs; tried on
# Wikipedia paragraphs, where it pads least.
_RUNGS = (0.75, 0.98)
_CUTS = 64  # Places where rectangles may be cut.


@dataclasses.dataclass(frozen=True)
class Ladder:
  """The shapes that one kind of rows comes in."""

  sizes: tuple[int, ...]  # Rows of each rectangle.
  rungs: tuple[tuple[int, ...], ...]  # Rectangles' lengths, rung by rung.

  def first_fit(self, lengths: Int[np.ndarray, "n"]) -> int:
    """Returns the first, and cheapest, rung that holds rows of `lengths`.

    Raises:
      ValueError: a row is longer than the last rung allows.
    """
    needed = group_lengths(lengths, self.sizes)
    for rung, allowed in enumerate(self.rungs):
      if np.all(needed <= allowed):
        return rung
    raise ValueError(
      f"A row of {needed.max()} tokens exceeds the ladder's "
      f"{self.rungs[-1][-1]}."
    )

  def pack(
    self,
    lengths: Int[np.ndarray, "n"],
    rung: int,
    make_rows: Callable[[np.ndarray, int], TokenRows],
    process_index: int = 0,
    process_count: int = 1,
  ) -> RaggedRows:
    """Sorts rows into the rectangles of a rung.

    Args:
      lengths: of this process' rows, each within the rung.
      rung: from `first_fit`; the same on every process.
      make_rows: (which rows, static length) -> those rows, padded to it.
      process_index: whose rows these are.
      process_count: how many processes bring as many rows each; the groups
        of all are concatenated, and `order` points into the whole.
    """
    shortest_first = np.argsort(lengths, kind="stable")
    groups = []
    order = np.empty(len(lengths), np.int32)
    start = 0
    for size, length in zip(self.sizes, self.rungs[rung], strict=True):
      members = shortest_first[start : start + size]
      groups.append(make_rows(members, length))
      first = start * process_count + size * process_index
      order[members] = np.arange(first, first + size)
      start += size
    return RaggedRows(groups=tuple(groups), order=order)


def group_lengths(
  lengths: Int[np.ndarray, "*s n"], sizes: Sequence[int]
) -> Int[np.ndarray, "*s g"]:
  """Returns the longest row of each rectangle, rows being sorted into them."""
  last = np.cumsum(sizes) - 1
  return np.sort(lengths, axis=-1)[..., last]


def plan(
  simulated: Int[np.ndarray, "s n"],
  longest: int,
  *,
  groups: int,
  multiple: int,
) -> Ladder:
  """Chooses rectangles and rungs from batches as they are expected.

  Args:
    simulated: row lengths of s batches.
    longest: a row may be, or a little more; the last rung allows it
      everywhere.
    groups: rectangles at most.
    multiple: of which each has a multiple of rows: the devices.

  Raises:
    ValueError: the rows of a batch do not divide over the devices.
  """
  num_rows = simulated.shape[1]
  if num_rows % multiple:
    raise ValueError(
      f"{num_rows} rows (batch_size * retrieval.num_candidates, this "
      f"process' share) do not divide over {multiple} devices."
    )
  usual = np.median(np.sort(simulated, axis=1), axis=0)  # [n]
  sizes = _cheapest_sizes(usual, groups, multiple)
  needed = group_lengths(simulated, sizes)  # [s, g]
  rungs = [np.quantile(needed, share, axis=0) for share in _RUNGS]
  # Retrieval may prefer longer passages than chance does: one more rung
  # before everything is padded to the longest.
  rungs.append(rungs[-1] + (longest - rungs[-1]) / 3)
  rungs.append(np.full(len(sizes), longest))
  return Ladder(
    sizes,
    tuple(
      tuple(round_up(length, longest) for length in rung.tolist())
      for rung in rungs
    ),
  )


def _cheapest_sizes(
  usual: np.ndarray, groups: int, multiple: int
) -> tuple[int, ...]:
  """Cuts rows of ascending lengths into rectangles with the least padding."""
  num_rows = len(usual)
  step = multiple * -(-num_rows // (multiple * _CUTS))
  cuts = [*range(0, num_rows, step), num_rows]
  # best[j]: cost and sizes of the rows before cuts[j], so many groups in.
  best: list[tuple[float, tuple[int, ...]]] = [
    (0.0 if cut == 0 else np.inf, ()) for cut in cuts
  ]
  for _ in range(groups):
    best = [best[0]] + [
      min(
        (
          best[i][0] + (cut - cuts[i]) * usual[cut - 1],
          (*best[i][1], cut - cuts[i]),
        )
        for i in range(j)
      )
      for j, cut in enumerate(cuts[1:], start=1)
    ]
  return best[-1][1]


def round_up(length: int | float, limit: int) -> int:
  """Returns the next static length that holds `length`, at most `limit`."""
  return min(-(-math.ceil(length) // LENGTH_STEP) * LENGTH_STEP, limit)
