# SPDX-License-Identifier: Apache-2.0
"""Configs of a run that takes seconds; the argument is "<stage>,<folder>"."""

from realm_jax.config import (
  BertConfig,
  DataConfig,
  EmbedderConfig,
  LengthConfig,
  OpenQaConfig,
  OptimizerConfig,
  RefreshConfig,
  RetrievalConfig,
  RunConfig,
  to_config_dict,
)

BERT = BertConfig(
  vocab_size=400,
  hidden_size=16,
  num_layers=1,
  num_heads=2,
  mlp_size=32,
  max_positions=72,
)


def get_config(argument):
  stage, folder = argument.split(",")
  refreshes = stage == "realm"
  return to_config_dict(
    RunConfig(
      stage=stage,
      num_steps=24,
      batch_size=8,
      log_every_steps=1,
      checkpoint_every_steps=8,
      data=DataConfig(
        tokenizer=f"{folder}/tokenizer",
        corpus=f"{folder}/corpus",
        train=f"{folder}/questions.jsonl" if stage == "openqa" else "",
      ),
      lengths=LengthConfig(query=24, passage=48, joint=72, masks=4),
      embedder=EmbedderConfig(bert=BERT, dim=8),
      encoder=BERT,
      openqa=OpenQaConfig(beam=10, read=2, max_span=4, span_width=8),
      retrieval=RetrievalConfig(num_candidates=3, backend="exact", lookahead=2),
      refresh=RefreshConfig(
        policy="lockstep" if refreshes else "never",
        every_steps=8,
        lag_steps=4,
        wait_seconds=900.0,
      ),
      optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=4),
    )
  )
