# SPDX-License-Identifier: Apache-2.0
import importlib
import json

import pytest

from experiments.factbook_demo import examples, run, settings, summary
from realm_jax import config
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_edits import read_edits

STAGES = ("ict", "reading", "realm", "closed_book", "openqa")


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
  monkeypatch.setattr(
    summary, "summarise", lambda directory, **figures: figures
  )


@pytest.mark.parametrize("stage", STAGES)
def test_configs_are_valid_and_read_the_demo_s_directory(stage):
  module = importlib.import_module(f"experiments.factbook_demo.{stage}")

  found = config.parse(module.get_config("some/where"))

  assert found.data.corpus == "some/where/corpus"
  assert found.data.tokenizer == "some/where/tokenizer"
  assert found.lengths == settings.LENGTHS
  sources = [found.init.retriever, found.init.encoder]
  assert all(
    not source or source.startswith("some/where/") for source in sources
  )
  # Test facts are for one report at the end.
  assert "test" not in found.data.train + found.data.validation


def test_the_baseline_trains_as_realm_does_but_without_passages():
  parsed = {
    stage: config.parse(
      importlib.import_module(f"experiments.factbook_demo.{stage}").get_config()
    )
    for stage in ("realm", "closed_book")
  }
  realm, baseline = parsed["realm"], parsed["closed_book"]

  assert baseline.reading.null_rate == 1.0
  assert baseline.data == realm.data
  assert baseline.num_steps == realm.num_steps
  assert baseline.batch_size == realm.batch_size
  assert baseline.encoder == realm.encoder
  assert baseline.init.encoder == realm.init.encoder
  assert baseline.optimizer.learning_rate == realm.optimizer.learning_rate


def test_stages_that_are_done_are_skipped(tmp_path):
  ran = []
  stages = {
    "one": lambda demo: ran.append("one"),
    "two": lambda demo: ran.append("two"),
  }

  run.Demo(tmp_path, seed=0).run({"one": stages["one"]})
  run.Demo(tmp_path, seed=0).run(stages)
  demo = run.Demo(tmp_path, seed=0)
  demo.run(stages)

  assert ran == ["one", "two"]
  assert demo.summarise()["wall_seconds"] >= 0


def test_an_interrupted_stage_runs_again_and_its_time_counts(tmp_path):
  def fail(demo):
    demo.processes.peak_bytes = 7
    raise SystemExit(75)

  with pytest.raises(SystemExit):
    run.Demo(tmp_path, seed=0).run({"one": fail})
  before = json.loads((tmp_path / "progress.json").read_text())["stages"]["one"]
  ran = []
  demo = run.Demo(tmp_path, seed=0)
  demo.run({"one": ran.append})
  figures = demo.summarise()

  assert not before["done"]
  assert len(ran) == 1
  assert figures["peak_bytes"] == 7
  assert figures["wall_seconds"] > before["seconds"]


def test_another_seed_in_the_same_directory_is_refused(tmp_path):
  run.Demo(tmp_path, seed=0).run({"one": lambda demo: None})

  with pytest.raises(ValueError, match="holds a demo of seed 0, and seed 1"):
    run.Demo(tmp_path, seed=1)


def test_prepare_writes_what_the_stages_read(
  tmp_path, few_documents, monkeypatch
):
  fewer = [
    document
    for document in few_documents
    if document.uid.endswith(("/capital", "/elevation"))
  ]
  monkeypatch.setattr(examples, "demo_documents", lambda: fewer)

  run.prepare(run.Demo(tmp_path, seed=0))

  for stage in STAGES:
    module = importlib.import_module(f"experiments.factbook_demo.{stage}")
    data = config.parse(module.get_config(str(tmp_path))).data
    for path in (data.train, data.validation):
      assert not path or (tmp_path / path).stat().st_size
  majority = json.loads((tmp_path / "data" / "majority.json").read_text())
  assert 0 < majority["exact_match"] < 0.3
  corpus = PassageCorpus.open(tmp_path / "corpus")
  edits = read_edits(corpus, tmp_path / "data" / "edits.jsonl")
  assert len(edits.replaced) == 20
  assert not edits.added and not edits.removed


def test_commands_name_the_config_file_the_directory_and_the_seed(tmp_path):
  command = run.Demo(tmp_path, seed=3).training("ict")

  assert f"--workdir={tmp_path / 'ict'}" in command
  assert "--config.seed=3" in command
  (path,) = [flag for flag in command if flag.startswith("--config=")]
  assert path.endswith(f"factbook_demo/ict.py:{tmp_path}")


def test_data_alone_can_be_made(tmp_path, monkeypatch):
  ran = []
  monkeypatch.setattr(run, "prepare", ran.append)
  flags = [f"--directory={tmp_path}", "--prepare_only"]
  assert run.main(flags) == 0
  assert run.main(flags) == 0
  assert len(ran) == 1
  assert not (tmp_path / "summary.json").exists()
