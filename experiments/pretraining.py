# SPDX-License-Identifier: Apache-2.0
r"""ORQA's warm-up and REALM's pre-training on Wikipedia, as published.

    realm train --config=experiments/pretraining.py:ict --workdir=wiki/ict
    realm tag-spans --corpus=wiki/corpus --tagger=<BERT, CoNLL-2003> \
      --output=wiki/spans
    python -m launch.local --config=experiments/pretraining.py:realm \
      --workdir=wiki/realm

`wiki/corpus` is Wikipedia in ORQA's blocks. Without `tag-spans` leave out the
texts (`--config.data.train=`): the passages' sentences are tagged by rules.

Hardware: published for 64 TPUs that train and 16 that embed. Time: not
published. Score: see `finetune_nq.py`. Not run at this size yet.
"""

import dataclasses

import ml_collections

from realm_jax.config import (
  BertConfig,
  DataConfig,
  EmbedderConfig,
  InitConfig,
  LengthConfig,
  OptimizerConfig,
  RefreshConfig,
  RetrievalConfig,
  RunConfig,
  to_config_dict,
)

_BERT_NAME = "bert-base-uncased"
_BERT = BertConfig(dtype="bfloat16")  # BERT-base.
_COMMON = RunConfig(
  data=DataConfig(tokenizer=_BERT_NAME, corpus="wiki/corpus"),
  encoder=_BERT,
  embedder=EmbedderConfig(bert=_BERT),
)

ICT = dataclasses.replace(
  _COMMON,
  stage="ict",
  num_steps=100_000,
  batch_size=4096,
  lengths=LengthConfig(query=64),
  optimizer=OptimizerConfig(learning_rate=1e-4),
  init=InitConfig(retriever=_BERT_NAME),
)
REALM = dataclasses.replace(
  _COMMON,
  stage="realm",
  num_steps=200_000,
  batch_size=512,
  data=dataclasses.replace(_COMMON.data, train="wiki/spans"),
  retrieval=RetrievalConfig(num_candidates=8),
  refresh=RefreshConfig(every_steps=500),
  optimizer=OptimizerConfig(learning_rate=3e-5),
  init=InitConfig(retriever="wiki/ict", encoder=_BERT_NAME),
)


def get_config(stage: str) -> ml_collections.ConfigDict:
  """Returns the config of "ict" or "realm".

  Raises:
    ValueError: another stage.
  """
  stages = {"ict": ICT, "realm": REALM}
  if stage not in stages:
    raise ValueError(f"Stage {stage!r} is not one of {sorted(stages)}.")
  return to_config_dict(stages[stage])
