# SPDX-License-Identifier: Apache-2.0
"""What the stages have each for themselves."""

import dataclasses
from typing import Literal

from realm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class IctConfig:
  """Inverse cloze task (ORQA section 3)."""

  removal_rate: float = 0.9  # How often the pseudo-query leaves its passage.
  # Passages of one title that a batch has side by side; see dpr.same_title.
  same_title: int = 1

  def __post_init__(self) -> None:
    require(
      self.same_title > 0,
      f"ict.same_title must be positive, got {self.same_title}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DprConfig:
  """The retriever supervised by pairs of questions and passages (DPR)."""

  # Passages an index finds for a passage's questions and that answer none of
  # them, beside the batch's others. Above 0, a builder refreshes that index.
  negatives: int = 0
  search: int = 50  # Passages found, of which those are the best wrong ones.
  # Questions of one passage that are asked together; batch_size counts the
  # passages. Embedding those is most of the work, and is done once for all.
  questions: int = 1
  # Passages of one title that a batch has side by side, where there are so
  # many: hard negatives of each other that take no index.
  same_title: int = 1

  def __post_init__(self) -> None:
    for name in ("questions", "same_title"):
      value = getattr(self, name)
      require(value > 0, f"dpr.{name} must be positive, got {value}.")
    require(
      0 <= self.negatives < self.search,
      f"dpr.negatives ({self.negatives}) must be in 0..{self.search - 1}: "
      f"they are chosen from dpr.search ({self.search}) passages, of which one "
      "or more may be right.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingConfig:
  """The encoder's warm-up: a masked text beside the passage it came from."""

  null_rate: float = 0.15  # How often the null document stands there instead.


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenQaConfig:
  """Span question answering (ORQA sections 4-5)."""

  # dense: by the retriever's towers. bm25: by words, for comparison; then only
  # the reader is trained, beside passages that BM25 scores. none: closed book,
  # for comparison; the encoder fills in the answer beside the null document.
  retriever: Literal["dense", "bm25", "none"] = "dense"
  beam: int = 5000  # C: passages in the retriever's loss.
  read: int = 5  # R: passages that the reader reads.
  max_span: int = 10  # W: widest answer, in pieces; closed book, with its end.
  span_width: int = 256  # Width of the start and of the end projection.
  # Training reads the passage that a question names, though it was not found,
  # in the last one's place: the reader learns while the retriever misses. Off
  # as published, where a question of which nothing right is found is lost.
  read_gold: bool = False
  # The document tower is trained, too, and the index refreshed by the builder.
  # Off as published: then the index' vectors stay right.
  train_documents: bool = False
