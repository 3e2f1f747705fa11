# SPDX-License-Identifier: Apache-2.0
"""`make demo` from the first stage to the last, too small to learn much."""

import json
import math

import pytest

from experiments.factbook_demo import examples, run

FIELDS = {"capital", "coastline", "elevation", "population"}
TINY = [
  "--config.batch_size=8",
  "--config.log_every_steps=4",
  "--config.embedder.dim=16",
  "--config.openqa.span_width=16",
  "--config.refresh.every_steps=8",
  "--config.refresh.lag_steps=8",
  "--config.refresh.min_recall_at_10=0.0",
  "--config.num_steps=24",
]
for bert in ("embedder.bert", "encoder"):
  TINY += [f"--config.{bert}.hidden_size=16", f"--config.{bert}.mlp_size=32"]
SUMMARY = {
  "wall_seconds": None,
  "peak_rss_bytes": None,
  "index_versions_published": None,
  "index_swaps": None,
  "max_swap_stall_steps": None,
  "wait_share": None,
  "retrieval_utility_nats": {"first", "last"},
  "heldout_fact_accuracy": {"open_book", "closed_book"},
  "qa_exact_match": {"open_book", "majority", "unseen_wordings"},
  "recall_at_5": {"after_ict", "after_pretraining"},
  "knowledge_update": {"edits", "correct_before", "correct_after"},
}


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder_and_again_in_no_time(
  tmp_path, monkeypatch, capsys
):
  documents = [
    document
    for document in examples.demo_documents()
    if document.uid.rpartition("/")[2] in FIELDS
  ]
  training = run.Demo.training
  monkeypatch.setattr(examples, "demo_documents", lambda: documents)
  monkeypatch.setattr(
    run.Demo, "training", lambda demo, stage: training(demo, stage) + TINY
  )
  directory = tmp_path / "demo"

  assert run.main([f"--directory={directory}", "--seed=1"]) == 0
  found = json.loads((directory / "summary.json").read_text())

  assert set(found) == set(SUMMARY)
  for name, parts in SUMMARY.items():
    value = found[name]
    assert parts is None or set(value) == parts
    for number in value.values() if parts else [value]:
      assert math.isfinite(number)
  assert found["index_versions_published"] >= 2
  assert found["knowledge_update"]["edits"] == 20
  for stage in ("realm", "openqa"):
    assert (directory / stage / "report" / "report.html").exists()

  assert run.main([f"--directory={directory}", "--seed=1"]) == 0
  assert json.loads((directory / "summary.json").read_text()) == found
  assert run.main([f"--directory={directory}", "--seed=2"]) == 1
  assert "holds a demo of seed 1" in capsys.readouterr().err
