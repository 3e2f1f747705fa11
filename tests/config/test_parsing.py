# SPDX-License-Identifier: Apache-2.0
import dataclasses

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
