# SPDX-License-Identifier: Apache-2.0
"""The candidates that a step gets, and the index that they come from."""

import dataclasses
import itertools
from typing import Literal

from realm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannConfig:
  """Overrides of what index/scann_backend.py chooses by size; 0 = by size."""

  num_leaves: int = 0  # Partitions of each part of the passages.
  leaves_to_search: int = 0  # Of those, for each query.
  reorder: int = 0  # Candidates by hash that are scored exactly.

  def __post_init__(self) -> None:
    for name in ("num_leaves", "leaves_to_search", "reorder"):
      value = getattr(self, name)
      require(
        value >= 0,
        f"scann.{name} must be positive, or 0 to go by size, got {value}.",
      )
    require(
      not self.num_leaves or self.leaves_to_search <= self.num_leaves,
      f"scann.leaves_to_search ({self.leaves_to_search}) exceeds scann."
      f"num_leaves ({self.num_leaves}).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
  """Which candidates a query gets, and how they are marginalised."""

  num_candidates: int = 8  # K, null document included.
  null_document: bool = True
  exclude_own: bool = True  # Drop the passage that the text was taken from.
  # Drop passages, too, that hold at least this share of a text's runs of 5
  # pieces: text cut elsewhere, or printed twice. 0, as published: none.
  exclude_overlap: float = 0.0
  marginal: Literal["per_mask", "joint"] = "per_mask"
  # scann: in host memory. device: exact, on the accelerators. exact: NumPy.
  backend: Literal["scann", "device", "exact"] = "scann"
  device_dtype: Literal["float32", "bfloat16"] = "float32"  # Of its vectors.
  approximate: bool = False  # device: the best of a block by approx_max_k.
  scann: ScannConfig = dataclasses.field(default_factory=ScannConfig)
  lookahead: int = 4  # Batches searched ahead of the device.

  def __post_init__(self) -> None:
    require(
      self.num_candidates >= 2,
      f"retrieval.num_candidates ({self.num_candidates}) must be at least 2: "
      "one passage beside the null document.",
    )
    require(
      0 <= self.exclude_overlap <= 1,
      f"retrieval.exclude_overlap ({self.exclude_overlap}) is a share of a "
      "text, from 0 (drop none) to 1.",
    )
    require(
      self.lookahead >= 1,
      f"retrieval.lookahead must be at least 1, got {self.lookahead}.",
    )
    require(
      self.backend == "device" or not self.approximate,
      "retrieval.approximate is a switch of retrieval.backend='device', and "
      f"the backend is {self.backend!r}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefreshConfig:
  """When the index is rebuilt, and when a rebuilt one takes effect.

  async: the builder takes the newest checkpoint as soon as it is free, and
  its index serves as soon as it is there. lockstep: every refresh step's
  checkpoint is indexed, and its index serves from exactly lag_steps later.
  never: checkpoint 0's index serves to the end.
  """

  policy: Literal["async", "lockstep", "never"] = "async"
  every_steps: int = 500  # A checkpoint for the builder, this often.
  # Refresh at these steps alone, in place of every_steps; () for every_steps.
  steps: tuple[int, ...] = ()
  # lockstep: the index of checkpoint s takes effect exactly at s + lag.
  lag_steps: int = 100
  # The oldest index that a step may be searched with; the trainer waits for
  # the builder rather than exceed it. 0: no limit.
  max_staleness_steps: int = 0
  wait_seconds: float = 3600.0  # Longest wait for a builder before an error.
  keep_versions: int = 3
  # Passages that a builder embeds and commits at a time; builders share a
  # version's shards, and a killed one's are not embedded again.
  shard_passages: int = 2**17
  min_recall_at_10: float = 0.95  # Against exact search; below: not published.

  def __post_init__(self) -> None:
    require(
      self.every_steps > 0,
      f"refresh.every_steps must be positive, got {self.every_steps}.",
    )
    require(
      self.shard_passages > 0,
      f"refresh.shard_passages must be positive, got {self.shard_passages}.",
    )
    require(
      all(gap > 0 for gap in self._gaps()),
      f"refresh.steps must ascend from above 0, got {self.steps}; checkpoint "
      "0 is always indexed.",
    )
    lockstep = self.policy == "lockstep"
    require(
      self.lag_steps > 0
      and (not lockstep or self.lag_steps <= self.smallest_gap()),
      f"refresh.lag_steps ({self.lag_steps}) must be in 1.."
      f"{self.smallest_gap()}, the fewest steps between two refreshes: an "
      "index takes effect before the next one is wanted.",
    )
    require(
      self.max_staleness_steps >= 0,
      "refresh.max_staleness_steps must not be negative, got "
      f"{self.max_staleness_steps}; 0 sets no limit.",
    )

  def is_refresh(self, step: int) -> bool:
    """Whether the index of checkpoint `step` is wanted; of 0, it always is."""
    return self.last_refresh(step) == step

  def last_refresh(self, step: int) -> int:
    """Returns the newest refresh step up to `step`, or 0 before any."""
    if self.policy == "never":
      return 0
    if self.steps:
      return max((s for s in self.steps if s <= step), default=0)
    return max(step // self.every_steps * self.every_steps, 0)

  def next_refresh(self, step: int) -> int | None:
    """Returns the first refresh step after `step`, or None after the last."""
    if step < 0:
      return 0
    if self.policy == "never":
      return None
    if self.steps:
      return next((s for s in self.steps if s > step), None)
    return (step // self.every_steps + 1) * self.every_steps

  def smallest_gap(self) -> int:
    """Returns the fewest steps from one refresh to the next."""
    return min(self._gaps(), default=self.every_steps)

  def largest_gap(self, num_steps: int) -> int:
    """Returns the most, in a run of `num_steps`; its end closes the last."""
    if self.policy == "never":
      return num_steps
    if self.steps:
      return max(*self._gaps(), num_steps - self.steps[-1])
    return min(self.every_steps, num_steps)

  def _gaps(self) -> list[int]:
    """Between the listed steps; empty where none are listed."""
    return [b - a for a, b in itertools.pairwise((0, *self.steps))]
