# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools

import pytest

from realm_jax import config
from realm_jax.config import RunConfig


def test_a_config_survives_the_round_trip_through_config_dict_and_json():
  run = RunConfig(num_steps=7, data=config.DataConfig(corpus="a/b"))
  assert config.parse(config.to_config_dict(run)) == run
  assert config.loads(config.dumps(run)) == run


def test_a_field_can_be_overridden_like_a_flag_does():
  raw = config.to_config_dict(RunConfig())
  raw.retrieval.num_candidates = 4
  raw.optimizer.learning_rate = 1.0
  run = config.parse(raw)
  assert run.retrieval.num_candidates == 4
  assert run.optimizer.learning_rate == 1.0


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"stages": "ict"}, r"unknown keys \['stages'\]"),
    ({"stage": "pretrain"}, r"config.stage='pretrain' is not one of"),
    ({"num_steps": "7"}, r"config.num_steps must be int, got '7'"),
    ({"num_steps": True}, r"config.num_steps must be int, got True"),
    ({"data": 3}, r"config.data must be a mapping, got 3"),
    ({"retrieval": {"lookahead": 0}}, r"config.retrieval: .*lookahead"),
    ({"retrieval": {"num_candidates": 1}}, "must be at least 2"),
    ({"retrieval": {"scann": {"reorder": -1}}}, "got -1"),
    (
      {"retrieval": {"scann": {"num_leaves": 5, "leaves_to_search": 6}}},
      r"leaves_to_search \(6\) exceeds scann.num_leaves \(5\)",
    ),
    ({"refresh": {"lag_steps": 0}}, r"refresh.lag_steps \(0\)"),
    ({"refresh": {"steps": [20, 10]}}, r"steps must ascend .*\(20, 10\)"),
    ({"refresh": {"steps": [0, 10]}}, "must ascend from above 0"),
    ({"refresh": {"steps": 10}}, "must be a tuple of int, got 10"),
    ({"refresh": {"steps": [10, "b"]}}, r"steps\[1\] must be int, got 'b'"),
    ({"refresh": {"steps": [10]}, "num_steps": 9}, r"10, after num_steps \(9"),
    ({"refresh": {"max_staleness_steps": -1}}, "must not be negative"),
    ({"refresh": {"max_staleness_steps": 500}}, "at least 503.*lookahead"),
    (
      {"refresh": {"policy": "lockstep", "steps": [50, 60]}},
      r"lag_steps \(100\) must be in 1\.\.10",
    ),
    ({"lengths": {"joint": 90}}, r"lengths.joint \(90\) must exceed"),
    ({"lengths": {"joint": 1024}}, "exceeds encoder.max_positions"),
    ({"embedder": {"dim": 0}}, "embedder.dim must be positive"),
    ({"embedder": {"head": "l2"}}, "must equal"),
    ({"encoder": {"num_heads": 7}}, "must be a multiple of num_heads"),
    ({"batch_size": 0}, "batch_size must be positive, got 0"),
    ({"dpr": {"negatives": 50}}, r"dpr.negatives \(50\) must be in 0..49"),
    ({"dpr": {"same_title": 0}}, "dpr.same_title must be positive, got 0"),
    (
      {"dpr": {"negatives": 1, "questions": 2}},
      r"dpr.negatives \(1\) are a question's own",
    ),
    ({"optimizer": {"accumulate_steps": 0}}, "must be positive, got 0"),
    (
      {"batch_size": 8, "optimizer": {"accumulate_steps": 3}},
      r"batch_size \(8\) is no multiple of .*accumulate_steps \(3\)",
    ),
    (
      {"stage": "ict", "optimizer": {"accumulate_steps": 2}},
      "the loss of stage 'ict' is over all pairs of a batch",
    ),
  ],
)
def test_a_wrong_config_names_the_key_and_the_value(change, message):
  with pytest.raises(ValueError, match=message):
    config.parse(change)


def test_listed_refresh_steps_are_a_tuple_in_flags_and_in_json():
  raw = config.to_config_dict(RunConfig())
  raw.refresh.steps = (10, 30)
  run = config.parse(raw)
  assert run.refresh.steps == (10, 30)
  assert config.loads(config.dumps(run)) == run


REFRESHES = [
  {"every_steps": 1},
  {"every_steps": 7},
  {"every_steps": 90},
  {"steps": (3,)},
  {"steps": (4, 5, 17, 30, 31)},
  {"policy": "never"},
]


@pytest.mark.parametrize("fields", REFRESHES)
def test_refresh_steps_agree_with_a_slow_enumeration(fields):
  refresh = config.RefreshConfig(lag_steps=1, **fields)
  listed = fields.get("steps", range(0, 200, fields.get("every_steps", 200)))
  wanted = sorted({0, *listed})
  for step in range(60):
    assert refresh.is_refresh(step) == (step in wanted)
    assert refresh.last_refresh(step) == max(s for s in wanted if s <= step)
    later = [s for s in wanted if s > step]
    assert refresh.next_refresh(step) == (later[0] if later else None)
  assert refresh.next_refresh(-1) == 0
  assert refresh.last_refresh(-3) == 0
  bounds = [*(s for s in wanted if s < 60), 60]
  assert refresh.largest_gap(60) == max(
    b - a for a, b in itertools.pairwise(bounds)
  )


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


def test_an_integer_is_taken_for_a_float_and_nothing_else_is_converted():
  assert (
    config.parse({"optimizer": {"clip_norm": 2}}).optimizer.clip_norm == 2.0
  )
  with pytest.raises(ValueError, match="must be float"):
    config.parse({"optimizer": {"clip_norm": "2"}})


def test_differences_name_dotted_keys_with_both_values():
  run = RunConfig()
  other = dataclasses.replace(
    run, seed=1, optimizer=config.OptimizerConfig(clip_norm=2.0)
  )
  assert config.differences(run, other) == {
    "seed": (0, 1),
    "optimizer.clip_norm": (1.0, 2.0),
  }


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
