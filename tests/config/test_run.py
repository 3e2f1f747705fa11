# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from realm_jax import config
from realm_jax.config import RunConfig


def _accepted(limit, lookahead, fields):
  try:
    return RunConfig(
      num_steps=40,
      retrieval=config.RetrievalConfig(lookahead=lookahead),
      refresh=config.RefreshConfig(max_staleness_steps=limit, **fields),
    )
  except ValueError:
    return None


def _waits_for_ever(limit, lookahead, fields):
  """Whether some step's batch needs a checkpoint that is still to come."""
  refresh = config.RefreshConfig(**fields)
  saved_when_planned = [
    max(c for c in range(max(step - lookahead, 0) + 1) if refresh.is_refresh(c))
    for step in range(40)
  ]
  return any(
    checkpoint < step - limit
    for step, checkpoint in enumerate(saved_when_planned)
  )


@pytest.mark.parametrize("lookahead", [1, 2, 5])
@pytest.mark.parametrize(
  "fields",
  [
    {"every_steps": 1},
    {"every_steps": 2},
    {"every_steps": 9},
    {"steps": (3, 20, 35)},
    {"steps": (9, 10, 25)},
  ],
)
def test_the_smallest_limit_of_staleness_is_the_first_that_cannot_deadlock(
  fields, lookahead
):
  smallest = next(n for n in range(1, 99) if _accepted(n, lookahead, fields))
  assert not _waits_for_ever(smallest, lookahead, fields)
  assert smallest == 1 or _waits_for_ever(smallest - 1, lookahead, fields)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"stage": "realm"}, "choice of stage 'openqa', and the stage is 'realm'"),
    (
      {"init": config.InitConfig(retriever="x")},
      r"leave init\.retriever \('x'\)",
    ),
    (
      {"openqa": config.OpenQaConfig(retriever="bm25", train_documents=True)},
      r"train_documents \(True\) off",
    ),
  ],
)
def test_what_bm25_does_not_go_with_is_refused(fields, message):
  run = RunConfig(stage="openqa", openqa=config.OpenQaConfig(retriever="bm25"))
  assert not run.searches and not run.has_retriever
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(run, **fields)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"stage": "mlm"}, "choice of stage 'openqa', and the stage is 'mlm'"),
    (
      {"openqa": config.OpenQaConfig(retriever="none", read_gold=True)},
      r"reads no passage: leave openqa\.read_gold \(True\) off",
    ),
    (
      {"lengths": config.LengthConfig(query=96, joint=106)},
      r"lengths\.joint \(106\) must be at least 107",
    ),
  ],
)
def test_what_closed_book_does_not_go_with_is_refused(fields, message):
  run = RunConfig(stage="openqa", openqa=config.OpenQaConfig(retriever="none"))
  assert run.is_closed_book and not run.searches and not run.has_retriever
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(run, **fields)


def test_a_builder_is_needed_where_training_searches():
  searching = config.DprConfig(negatives=1)
  runs = [
    RunConfig(stage="ict"),
    RunConfig(stage="mlm"),
    RunConfig(stage="dpr"),
    RunConfig(stage="ict", dpr=searching),
    RunConfig(stage="dpr", dpr=searching),
    RunConfig(stage="realm"),
    RunConfig(stage="openqa"),
  ]
  assert [run.searches for run in runs] == [False] * 4 + [True] * 3
