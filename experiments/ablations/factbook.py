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

Two cores of a Xeon with AVX-512: 250 CPU minutes, which took 189 beside tests
and compilations. Means of three seeds, and their range:

                              filled in, %       recall@5, %   utility, nats
  realm                  77.2 (74.0-79.6)  97.0 (96.5-97.3)  17.9 (17.4-18.1)
  random_spans           14.4 (12.2-16.1)  85.4 (84.7-86.6)   10.6 (9.9-11.3)
  random_tokens          12.2 (10.9-13.0)  87.1 (84.1-90.0)  10.8 (10.5-11.1)
  stale                  56.9 (54.5-61.3)  84.3 (82.6-86.2)  10.8 (10.2-11.5)
  ict_retriever          47.1 (44.9-49.7)  66.9 (64.2-71.2)     7.5 (6.4-8.1)
  no_null                78.7 (74.1-82.2)  98.6 (97.9-99.8)  17.8 (17.3-18.1)
  joint                  75.8 (72.7-77.6)  95.5 (93.3-97.4)  17.7 (17.2-18.5)

                       questions right, %       recall@5, %
  both                   78.9 (77.9-80.4) 100.0 (99.9-100.0)
  realm_retriever        79.9 (78.8-81.0) 100.0 (99.9-100.0)
  realm_encoder          73.6 (72.4-74.6)  98.9 (98.6-99.1)
  neither                73.8 (72.2-75.1)  98.9 (98.6-99.2)

What these questions gain from REALM comes by its retriever; where a reader can
find its passages, the encoder that REALM trained is no better a start than that
of the warm-up, which has learned to copy already.
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
