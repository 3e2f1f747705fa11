# SPDX-License-Identifier: Apache-2.0
r"""Table 2 of REALM at its own size; the argument is what is changed.

Pre-training with one change (`switches.PRETRAINING`), its recall before any
question is learned, and fine-tuning on what came of it:

    python -m launch.local --workdir=wiki/random_spans \
      --config=experiments/ablations/paper.py:random_spans
    realm evaluate --workdir=wiki/random_spans \
      --questions=tfds:natural_questions_open/train#orqa_dev
    python -m launch.local --workdir=wiki/nq_random_spans \
      --config=experiments/finetune_nq.py:paper \
      --config.init.retriever=wiki/random_spans \
      --config.init.encoder=wiki/random_spans

Fine-tuning from a part of what `pretraining.py` made (`switches.STARTS`):

    python -m launch.local --workdir=wiki/nq_realm_retriever \
      --config=experiments/ablations/paper.py:realm_retriever

Hardware and time: those of `pretraining.py` and `finetune_nq.py`, for each.
Scores: published for NaturalQuestions' dev set; none of ours yet.
"""

import dataclasses

import ml_collections

from experiments import finetune_nq, pretraining
from experiments.ablations import switches
from realm_jax import config
from realm_jax.config import InitConfig, RunConfig

_RETRIEVERS = {"realm": "wiki/realm", "base": "wiki/ict"}
_ENCODERS = {"realm": "wiki/realm", "base": pretraining.REALM.init.encoder}


def get_config(name: str) -> ml_collections.ConfigDict:
  """Returns the config of an ablation.

  Raises:
    ValueError: there is none of this name.
  """
  return config.to_config_dict(_run(name))


def _run(name: str) -> RunConfig:
  if name in switches.PRETRAINING:
    return switches.PRETRAINING[name](pretraining.REALM)
  if name in switches.STARTS:
    retriever, encoder = switches.STARTS[name]
    init = InitConfig(
      retriever=_RETRIEVERS[retriever], encoder=_ENCODERS[encoder]
    )
    run = config.parse(finetune_nq.get_config("paper"))
    return dataclasses.replace(run, init=init)
  known = sorted([*switches.PRETRAINING, *switches.STARTS])
  raise ValueError(f"Ablation {name!r} is not one of {known}.")
