# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from experiments import pretraining
from experiments.ablations import factbook, masks, orderings, paper, switches
from launch.figures import Cell
from realm_jax import config
from realm_jax.data.masking import pieces_of
from realm_jax.data.tokenize import train_tokenizer

FIGURES = tuple(orderings.FIGURES)


@pytest.mark.parametrize("name", switches.PRETRAINING)
def test_a_switch_changes_one_thing_of_the_published_run(name):
  changed = config.differences(
    pretraining.REALM, config.parse(paper.get_config(name))
  )
  expected = {
    "random_spans": {"data.masking"},
    "random_tokens": {"data.masking"},
    "stale": {"refresh.every_steps"},
    "frozen_index": {"refresh.policy"},
    "ict_retriever": {"refresh.policy", "optimizer.retriever_scale"},
    "no_null": {"retrieval.null_document"},
    "own_passage": {"retrieval.exclude_own"},
    "joint": {"retrieval.marginal"},
  }
  assert set(changed) == expected[name]


def test_a_stale_index_is_rebuilt_every_15_000_steps():
  run = config.parse(paper.get_config("stale"))
  assert run.refresh.every_steps == 15_000


def test_fine_tuning_starts_from_either_half_of_pre_training():
  found = {
    name: config.parse(paper.get_config(name)).init for name in switches.STARTS
  }
  assert found["realm_retriever"].retriever == found["both"].retriever
  assert found["realm_retriever"].encoder == found["neither"].encoder
  assert found["realm_encoder"].retriever == found["neither"].retriever
  assert found["realm_encoder"].encoder == found["both"].encoder
  assert found["neither"].retriever == pretraining.REALM.init.retriever
  assert found["neither"].encoder == pretraining.REALM.init.encoder


def test_an_unknown_ablation_is_refused_with_those_there_are():
  with pytest.raises(ValueError, match=r"'nothing' is not one of \['both'"):
    paper.get_config("nothing")


@pytest.mark.parametrize("stage", ["ict", "realm"])
def test_the_published_stages_are_valid_runs(stage):
  base = config.parse(pretraining.get_config(stage))
  large = config.parse(pretraining.get_config(f"{stage},large"))
  assert base.stage == large.stage == stage
  assert large.encoder.num_layers == large.embedder.bert.num_layers == 24
  changed = {key.split(".")[0] for key in config.differences(base, large)}
  assert changed == {"remat", "encoder", "embedder", "init"}
  with pytest.raises(ValueError, match=r"'mlm' is not one of \['ict'"):
    pretraining.get_config("mlm")


def test_rows_of_the_factbook_differ_in_their_switch_alone():
  table = factbook.table("some/where")
  whole = table.stages["realm"]
  for name in factbook.PRETRAINED:
    expected = switches.PRETRAINING.get(name, lambda run: run)(whole)
    assert table.stages[name] == expected
  starts = [table.stages[name] for name in switches.STARTS]
  assert len({dataclasses.replace(s, init=whole.init) for s in starts}) == 1
  # Rebuilt that rarely, the index is the first one to the end.
  assert table.stages["stale"].refresh.every_steps > whole.num_steps
  pretrained = [row for row in table.rows if row.name in factbook.PRETRAINED]
  assert len(pretrained) == len(factbook.PRETRAINED)
  assert {table.data_of(row)["texts"] for row in pretrained} == {
    "some/where/data/test_text.jsonl"
  }


def cells(**rows):
  """Cells of {row: its figures of seed 0, 1, ...}; all figures alike."""
  return [
    Cell(
      row=row,
      label=row,
      seed=seed,
      seconds={"realm": 1.0},
      figures={name: value for name in FIGURES}
      | {"intervals": {name: [value - 0.1, value + 0.1] for name in FIGURES}},
    )
    for row, values in rows.items()
    for seed, value in enumerate(values)
  ]


def test_an_ordering_is_told_by_differences_of_the_same_seed():
  found = cells(realm=[0.5, 0.8, 0.3], stale=[0.4, 0.9], random_spans=[])
  (fresh,) = [o for o in orderings.ORDERINGS if o.worse == "stale"]
  np.testing.assert_allclose(
    orderings.differences(found, fresh, FIGURES[0]), [0.1, -0.1]
  )
  np.testing.assert_allclose(
    orderings.differences(found, fresh, "retrieval_utility"), [0.1, -0.1]
  )
  lines = orderings.to_markdown(found).splitlines()
  assert lines[4].endswith(
    "| +0.0 (-10.0 to +10.0), 1 of 2 | +0.0 (-0.1 to +0.1), 1 of 2 |"
  )
  assert lines[2] == "| salient spans > random spans |  |  |  |"


def test_a_finished_table_gets_its_orderings_and_a_plot(tmp_path, capsys):
  found = cells(realm=[0.5, 0.8], random_spans=[0.4, 0.7])
  shown = json.dumps([dataclasses.asdict(cell) for cell in found])
  (tmp_path / "table.json").write_text(shown)
  assert orderings.main([f"--directory={tmp_path}"]) == 0
  assert "2 of 2" in capsys.readouterr().out
  assert "2 of 2" in (tmp_path / "orderings.md").read_text()
  assert (tmp_path / "ablations.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_table_there_is_a_way_out(tmp_path, capsys):
  assert orderings.main([f"--directory={tmp_path}"]) == 1
  assert "run `make ablations`" in capsys.readouterr().err


def test_salient_masks_are_the_facts_and_random_ones_seldom(tmp_path):
  (tmp_path / "data").mkdir()
  text = "The coastline of Aruba is 68 km long."
  lines = [{"text": text, "spans": [[26, 31]]}] * masks.SENTENCES
  (tmp_path / "data" / "train_text.jsonl").write_text(
    "".join(f"{json.dumps(line)}\n" for line in lines)
  )
  tokenizer = train_tokenizer([text], 100, tmp_path / "tokenizer")
  (encoding,) = tokenizer.encode_batch([text])
  fact = len(pieces_of(encoding, (26, 31)))
  assert masks.shares(tmp_path, "salient") == (fact, 1.0, 1.0)
  pieces, share, some = masks.shares(tmp_path, "token")
  assert pieces == round(0.15 * len(encoding))
  assert share == pytest.approx(fact / len(encoding), abs=0.03)
  assert share <= some < 1.0
