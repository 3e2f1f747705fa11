# SPDX-License-Identifier: Apache-2.0
"""How parameters start, and how they are updated."""

import dataclasses

from realm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW as BERT and REALM use it."""

  learning_rate: float = 3e-5  # Peak.
  retriever_scale: float = 1.0  # The retriever's rate over learning_rate.
  # 0 for REALM's rule: min(10000, max(100, num_steps / 10)).
  warmup_steps: int = 0
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-6
  # Parts of a batch that are computed one after another, for one update: what
  # a large batch costs in memory is one part's.
  accumulate_steps: int = 1

  def __post_init__(self) -> None:
    require(
      self.accumulate_steps > 0,
      "optimizer.accumulate_steps must be positive, got "
      f"{self.accumulate_steps}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
  """Where parameters start: a workdir, a Hugging Face folder, or "" = random.

  A workdir may end in `@<step>`; without it the newest checkpoint is taken.
  """

  retriever: str = ""
  # For openqa: a reader, or an encoder for its BERT; closed book, all of that.
  encoder: str = ""
