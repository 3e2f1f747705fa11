# SPDX-License-Identifier: Apache-2.0
"""What the demo's stages share: a model small enough to train from scratch.

Two layers of width 128 are three orders of magnitude smaller than REALM's
towers. See the README on what such a model needs in order to learn to copy.
"""

import dataclasses
from typing import Literal

from realm_jax.config import (
  BertConfig,
  DataConfig,
  EmbedderConfig,
  LengthConfig,
  RunConfig,
)

VOCABULARY = 8000
# Two rectangles of rows: more would save little padding, and each has to be
# compiled.
LENGTHS = LengthConfig(query=26, passage=56, joint=82, masks=8, groups=2)

_BERT = BertConfig(
  vocab_size=VOCABULARY,
  hidden_size=128,
  num_layers=2,
  num_heads=4,
  mlp_size=512,
  max_positions=LENGTHS.joint,
  dropout=0.0,
  attention_dropout=0.0,
  norm="pre",
  positions="relative",
  init="copying",
)


def base(directory: str, facts: Literal["", "text", "qa"] = "") -> RunConfig:
  """Returns the part of a stage's config that all stages have.

  Args:
    directory: of the demo; its corpus and the earlier stages lie there.
    facts: train on the facts as sentences or as questions; "" for the corpus.
  """
  data = DataConfig(
    tokenizer=f"{directory}/tokenizer", corpus=f"{directory}/corpus"
  )
  if facts:
    data = dataclasses.replace(
      data,
      train=f"{directory}/data/train_{facts}.jsonl",
      validation=f"{directory}/data/validation_{facts}.jsonl",
    )
  return RunConfig(
    log_every_steps=20,
    checkpoint_every_steps=200,
    keep_checkpoints=2,
    data=data,
    lengths=LENGTHS,
    embedder=EmbedderConfig(
      bert=_BERT, dim=128, pooling="mean", temperature=4.0
    ),
    encoder=_BERT,
  )
