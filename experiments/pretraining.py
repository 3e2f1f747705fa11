# SPDX-License-Identifier: Apache-2.0
r"""ORQA's warm-up and REALM's pre-training on Wikipedia, as published.

    realm train --config=experiments/pretraining.py:ict --workdir=wiki/ict
    realm tag-spans --corpus=wiki/corpus --tagger=<BERT, CoNLL-2003> \
      --output=wiki/spans
    python -m launch.local --config=experiments/pretraining.py:realm \
      --workdir=wiki/realm

`:ict,large` and `:realm,large` are the same with BERT-large, of which much is
computed again for the backward pass.

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
_LARGE_NAME = "bert-large-uncased"  # The same word pieces.
_LARGE = dataclasses.replace(
  _BERT, hidden_size=1024, num_layers=24, num_heads=16, mlp_size=4096
)
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


def large(run: RunConfig) -> RunConfig:
  """Returns the same stage of BERT-large."""
  starts = {
    _BERT_NAME: _LARGE_NAME,
    REALM.init.retriever: f"{REALM.init.retriever}-large",
    "": "",
  }
  return dataclasses.replace(
    run,
    remat="dots",
    encoder=_LARGE,
    embedder=EmbedderConfig(bert=_LARGE),
    init=InitConfig(
      retriever=starts[run.init.retriever], encoder=starts[run.init.encoder]
    ),
  )


def get_config(argument: str) -> ml_collections.ConfigDict:
  """Returns the config of "ict", "ict,large", "realm" or "realm,large".

  Raises:
    ValueError: another argument.
  """
  stages = {"ict": ICT, "realm": REALM}
  stages |= {f"{name},large": large(run) for name, run in stages.items()}
  if argument not in stages:
    raise ValueError(f"Stage {argument!r} is not one of {sorted(stages)}.")
  return to_config_dict(stages[argument])
