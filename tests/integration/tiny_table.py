# SPDX-License-Identifier: Apache-2.0
"""A table that takes a minute; the argument is the folder of its data."""

import dataclasses

from launch.table import Row, Table
from realm_jax import config
from realm_jax.config import InitConfig
from tests.integration import tiny_run


def get_config(folder):
  def stage(name, **init):
    run = config.parse(tiny_run.get_config(f"{name},{folder}"))
    return dataclasses.replace(run, init=InitConfig(**init))

  closed = stage("openqa")
  closed_book = dataclasses.replace(closed.openqa, retriever="none")
  few = "--limit=4"
  return Table(
    questions=f"{folder}/questions.jsonl",
    stages={
      "ict": stage("ict"),
      "qa": stage("openqa", retriever="stage:ict"),
      "closed": dataclasses.replace(closed, openqa=closed_book),
    },
    rows=(
      Row(name="ict", label="ICT only", stage="qa", flags=(few,)),
      Row(
        name="gold",
        label="Gold",
        stage="qa",
        flags=(few, "--retriever=gold"),
        against="ict",
      ),
      Row(name="closed", label="Closed book", stage="closed", flags=(few,)),
    ),
  ).to_config_dict()
