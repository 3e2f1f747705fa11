# SPDX-License-Identifier: Apache-2.0
r"""Table 2 of REALM on the demo's corpus, in hours on two cores.

    make ablations

prepares `ablations/` as the demo is prepared, and runs

    realm table --workdir=ablations \
      --config=experiments/ablations/factbook.py:ablations

and `python -m experiments.ablations.orderings --directory=ablations`, which
says which of the paper's orderings hold. The same command goes on after a stop.

Pre-training is scored by masked facts that no training sentence told: whether
they are filled in, whether their passage is among five, and what retrieval is
worth; fine-tuning by questions about them. The demo's settings, with two
thirds of its steps; the index is rebuilt at every 20th, in lockstep, so that a
run does not depend on how fast the machine is. Thirty times as rarely is then
not once, and `stale` and `frozen_index` are the same run: there is one row.
The demo's sentences stand in no passage, so leaving out the own one changes
nothing: there is no row for it.
"""

import dataclasses

import ml_collections

from experiments.ablations import switches
from experiments.factbook_demo import ict, openqa, reading, realm
from launch.table import STAGE, Row, Table
from realm_jax import config
from realm_jax.config import InitConfig, RefreshConfig, RunConfig

SEEDS = (0, 1, 2)
_STEPS = 400
_QUESTION_STEPS = 200
_REFRESH = RefreshConfig(policy="lockstep", every_steps=20, lag_steps=20)

PRETRAINED = {
  "realm": "REALM: salient spans, fresh index",
  "random_spans": "random spans",
  "random_tokens": "random tokens",
  "stale": "30 times staler index",
  "ict_retriever": "the inverse cloze task's retriever",
  "no_null": "no null document",
  "joint": "marginal over whole spans",
}
_FINE_TUNED = {
  "both": "questions, from REALM's retriever and encoder",
  "realm_retriever": "questions, from REALM's retriever alone",
  "realm_encoder": "questions, from REALM's encoder alone",
  "neither": "questions, from neither",
}
_RETRIEVERS = {"realm": f"{STAGE}realm", "base": f"{STAGE}ict"}
_ENCODERS = {"realm": f"{STAGE}realm", "base": f"{STAGE}reading"}


def get_config(directory: str = "ablations") -> ml_collections.ConfigDict:
  """Returns the table, over what was prepared in `directory`."""
  return table(directory).to_config_dict()


def table(directory: str) -> Table:
  """Returns the table; the argument is that of `get_config`."""
  data = f"{directory}/data"
  return Table(
    questions=f"{data}/test_qa.jsonl",
    texts=f"{data}/test_text.jsonl",
    stages=stages(directory),
    rows=tuple(
      Row(name=name, label=label, stage=name)
      for name, label in (PRETRAINED | _FINE_TUNED).items()
    ),
    seeds=SEEDS,
  )


def stages(directory: str) -> dict[str, RunConfig]:
  """Returns the config of every stage, by name."""
  warm_ups = {
    "ict": config.parse(ict.get_config(directory)),
    "reading": config.parse(reading.get_config(directory)),
  }
  whole = _pretraining(directory)
  return {
    **warm_ups,
    "realm": whole,
    **{
      name: switches.PRETRAINING[name](whole)
      for name in PRETRAINED
      if name != "realm"
    },
    **{name: _fine_tuning(directory, name) for name in _FINE_TUNED},
  }


def _pretraining(directory: str) -> RunConfig:
  return dataclasses.replace(
    config.parse(realm.get_config(directory)),
    num_steps=_STEPS,
    refresh=_REFRESH,
    init=InitConfig(retriever=_RETRIEVERS["base"], encoder=_ENCODERS["base"]),
  )


def _fine_tuning(directory: str, name: str) -> RunConfig:
  retriever, encoder = switches.STARTS[name]
  return dataclasses.replace(
    config.parse(openqa.get_config(directory)),
    num_steps=_QUESTION_STEPS,
    refresh=_REFRESH,
    init=InitConfig(
      retriever=_RETRIEVERS[retriever], encoder=_ENCODERS[encoder]
    ),
  )
