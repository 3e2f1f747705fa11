# SPDX-License-Identifier: Apache-2.0
"""A whole run, and what of it does not go together."""

import dataclasses
from typing import Literal

from realm_jax.config.data import DataConfig, LengthConfig
from realm_jax.config.models import BertConfig, EmbedderConfig
from realm_jax.config.retrieval import RefreshConfig, RetrievalConfig
from realm_jax.config.rules import require
from realm_jax.config.stages import (
  DprConfig,
  IctConfig,
  OpenQaConfig,
  ReadingConfig,
)
from realm_jax.config.training import InitConfig, OptimizerConfig

Stage = Literal["ict", "dpr", "mlm", "realm", "openqa"]
Remat = Literal["none", "dots", "layers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """How many devices share the batch (data) and the parameters (fsdp)."""

  data: int = -1  # -1: all devices that fsdp leaves.
  fsdp: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """One training run. Batch sizes and steps are global."""

  stage: Stage = "realm"
  seed: int = 0
  num_steps: int = 200_000
  batch_size: int = 512  # B
  log_every_steps: int = 50
  checkpoint_every_steps: int = 500
  keep_checkpoints: int = 3
  # What is computed again for the backward pass, rather than kept in memory.
  # dots: all of a Transformer layer but the products with its weights.
  # layers: all but a layer's input. The result is the same.
  remat: Remat = "none"
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  lengths: LengthConfig = dataclasses.field(default_factory=LengthConfig)
  embedder: EmbedderConfig = dataclasses.field(default_factory=EmbedderConfig)
  encoder: BertConfig = dataclasses.field(default_factory=BertConfig)
  ict: IctConfig = dataclasses.field(default_factory=IctConfig)
  dpr: DprConfig = dataclasses.field(default_factory=DprConfig)
  reading: ReadingConfig = dataclasses.field(default_factory=ReadingConfig)
  retrieval: RetrievalConfig = dataclasses.field(
    default_factory=RetrievalConfig
  )
  refresh: RefreshConfig = dataclasses.field(default_factory=RefreshConfig)
  openqa: OpenQaConfig = dataclasses.field(default_factory=OpenQaConfig)
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  init: InitConfig = dataclasses.field(default_factory=InitConfig)
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

  def __post_init__(self) -> None:
    for name in ("num_steps", "batch_size", "log_every_steps"):
      value = getattr(self, name)
      require(value > 0, f"{name} must be positive, got {value}.")
    _check_refresh(self)
    _check_parts(self)
    _check_retriever(self)
    require(
      self.lengths.passage <= self.embedder.bert.max_positions,
      f"lengths.passage ({self.lengths.passage}) exceeds "
      f"embedder.bert.max_positions ({self.embedder.bert.max_positions}).",
    )
    require(
      self.lengths.joint <= self.encoder.max_positions,
      f"lengths.joint ({self.lengths.joint}) exceeds encoder.max_positions "
      f"({self.encoder.max_positions}).",
    )

  @property
  def has_retriever(self) -> bool:
    """Whether there are towers that embed queries and passages."""
    if self.stage == "openqa":
      return self.openqa.retriever == "dense"
    return self.stage != "mlm"

  @property
  def is_closed_book(self) -> bool:
    """Whether questions are answered without any passage."""
    return self.openqa.retriever == "none"

  @property
  def queries_together(self) -> int:
    """How many queries of a batch share their passage (stages ict and dpr)."""
    return self.dpr.questions if self.stage == "dpr" else 1

  @property
  def searches(self) -> bool:
    """Whether steps search an index of vectors, which a builder makes."""
    if self.stage == "dpr":
      return self.dpr.negatives > 0
    return self.has_retriever and self.stage in ("realm", "openqa")


def _check_retriever(run: RunConfig) -> None:
  """Refuses what has no meaning where nothing is embedded."""
  chosen = run.openqa.retriever
  if chosen == "dense":
    return
  require(
    run.stage == "openqa",
    f"openqa.retriever={chosen!r} is a choice of stage 'openqa', and the stage "
    f"is {run.stage!r}.",
  )
  require(
    not run.init.retriever and not run.openqa.train_documents,
    f"openqa.retriever={chosen!r} has no parameters: leave init.retriever "
    f"({run.init.retriever!r}) empty and openqa.train_documents "
    f"({run.openqa.train_documents}) off.",
  )
  if not run.is_closed_book:
    return
  require(
    not run.openqa.read_gold,
    "openqa.retriever='none' reads no passage: leave openqa.read_gold "
    f"({run.openqa.read_gold}) off.",
  )
  needed = run.lengths.query + run.openqa.max_span + 1
  require(
    needed <= run.lengths.joint,
    f"lengths.joint ({run.lengths.joint}) must be at least {needed}: closed "
    f"book, the question (lengths.query, {run.lengths.query}) is followed by "
    f"openqa.max_span ({run.openqa.max_span}) masks and the null document.",
  )


def _check_parts(run: RunConfig) -> None:
  parts = run.optimizer.accumulate_steps
  require(
    run.batch_size % parts == 0,
    f"batch_size ({run.batch_size}) is no multiple of optimizer."
    f"accumulate_steps ({parts}).",
  )
  require(
    parts == 1 or run.stage not in ("ict", "dpr"),
    f"optimizer.accumulate_steps is {parts}, and the loss of stage "
    f"{run.stage!r} is over all pairs of a batch: computed in parts, it would "
    "be that of smaller batches. Use more devices, or a smaller batch_size "
    "with accumulate_steps=1.",
  )


def _check_refresh(run: RunConfig) -> None:
  """Refuses a run that would wait for an index that can never come."""
  refresh = run.refresh
  last = max(refresh.steps, default=0)
  require(
    last <= run.num_steps,
    f"refresh.steps ends at {last}, after num_steps ({run.num_steps}).",
  )
  between = min(run.checkpoint_every_steps, refresh.smallest_gap())
  saved = refresh.lag_steps // between + 1  # Until the index is waited for.
  require(
    refresh.policy != "lockstep" or saved <= run.keep_checkpoints,
    f"keep_checkpoints ({run.keep_checkpoints}) is too small for lockstep: up "
    f"to {saved} checkpoints are saved within refresh.lag_steps "
    f"({refresh.lag_steps}), and the builder needs the first of them.",
  )
  # A batch is planned some steps ahead, and then the checkpoint of its own
  # steps does not exist yet. The step before the next index serves is oldest.
  ahead = {
    "async": run.retrieval.lookahead,
    "lockstep": refresh.lag_steps,
    "never": 0,
  }[refresh.policy]
  gap = refresh.largest_gap(run.num_steps)
  oldest = gap + max(ahead - 1, 0)
  require(
    refresh.max_staleness_steps == 0 or oldest <= refresh.max_staleness_steps,
    f"refresh.max_staleness_steps ({refresh.max_staleness_steps}) must be at "
    f"least {oldest}, or 0 for no limit: refreshes are up to {gap} steps apart "
    f"and take effect {ahead} steps late (async: retrieval.lookahead, "
    "lockstep: refresh.lag_steps), so an index gets that old however fast the "
    "builder is, and the trainer would wait for ever. Raise it or refresh "
    "more often.",
  )
