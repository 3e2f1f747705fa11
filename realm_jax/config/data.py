# SPDX-License-Identifier: Apache-2.0
"""What a run reads, and how long it lets it be."""

import dataclasses
from typing import Literal

from realm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Paths of what a run reads, or URLs of object stores."""

  tokenizer: str = ""  # Folder or hub name.
  corpus: str = ""  # A PassageCorpus directory.
  # realm, mlm: texts, of the corpus or of any other: JSONL of {"text",
  # "spans"?, "source_uid"?, "passage_uid"?}, what `realm tag-spans` made, or
  # TFDS' salient_span_wikipedia; "" for the corpus' own sentences. dpr,
  # openqa: JSONL of {"question", "answers", "passage_uid"?}; dpr trains on
  # those that name a passage.
  train: str = ""
  validation: str = ""  # Same format; probes retrieval at each index swap.
  reader_sees_title: bool = False  # REALM's reader sees the body alone.
  masking: Literal["salient", "span", "token"] = "salient"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthConfig:
  """Static token lengths, special tokens included."""

  query: int = 96  # Q: [CLS] query [SEP]
  passage: int = 288  # P: [CLS] title [SEP] body [SEP]
  joint: int = 384  # T: [CLS] query [SEP] (title) body [SEP]
  masks: int = 10  # M: predicted positions a query.

  def __post_init__(self) -> None:
    for name in ("query", "passage", "joint", "masks"):
      value = getattr(self, name)
      require(value > 0, f"lengths.{name} must be positive, got {value}.")
    require(
      self.joint > self.query,
      f"lengths.joint ({self.joint}) must exceed lengths.query "
      f"({self.query}): the passage comes after the query.",
    )
