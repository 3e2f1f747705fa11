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
  OptimizerConfig,
  RunConfig,
)

VOCABULARY = 8000
LENGTHS = LengthConfig(query=26, passage=56, joint=82, masks=8)

BERT = BertConfig(
  vocab_size=VOCABULARY,
  hidden_size=128,
  num_layers=2,
  num_heads=8,  # One for each offset that copying starts from.
  mlp_size=512,
  max_positions=LENGTHS.joint,
  activation="gelu_tanh",  # A third of the exact one's time on a CPU.
  norm_eps=1e-6,
  dropout=0.0,
  attention_dropout=0.0,
  norm="pre",
  positions="relative",
  init="copying",
)


def optimizer(
  learning_rate: float, retriever_scale: float = 1.0
) -> OptimizerConfig:
  """Returns AdamW for a few hundred steps: a short warm-up and memory."""
  return OptimizerConfig(
    learning_rate=learning_rate,
    retriever_scale=retriever_scale,
    warmup_steps=40,
    b2=0.98,
  )


def base(directory: str, texts: Literal["warmup", "text", "qa"]) -> RunConfig:
  """Returns the part of a stage's config that all stages have.

  Args:
    directory: of the demo; its corpus and the earlier stages lie there.
    texts: train on fragments of the corpus, on the facts as sentences, or on
      the facts as questions.
  """
  data = DataConfig(
    tokenizer=f"{directory}/tokenizer",
    corpus=f"{directory}/corpus",
    train=f"{directory}/data/train_{texts}.jsonl",
  )
  if texts != "warmup":
    data = dataclasses.replace(
      data, validation=f"{directory}/data/validation_{texts}.jsonl"
    )
  return RunConfig(
    log_every_steps=20,
    checkpoint_every_steps=200,
    keep_checkpoints=2,
    data=data,
    lengths=LENGTHS,
    embedder=EmbedderConfig(
      bert=BERT, dim=128, pooling="mean", temperature=4.0
    ),
    encoder=BERT,
  )
