# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil
import sys

import pytest

from launch import cells, tasks
from launch.cells import Cells
from launch.table import Row, Table, parse
from realm_jax.config import InitConfig, RunConfig

# In place of training and of evaluating: says that it ran, and with what.
_FAKE = """
import json, os, pathlib, sys
kind, made, log = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
with open(log, "a") as file:
  file.write(f"{kind} {made.stem}\\n")
if made.stem == os.environ.get("FAILING", ""):
  raise SystemExit(3)
if kind != "evaluate":
  made.mkdir(parents=True, exist_ok=True)
  (made / "config.json").touch()
else:
  figures = made.with_suffix(".figures.json")
  figures.write_text(json.dumps({"exact_match": 0.5}))
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
  """Replaces the commands; their `ran` tells which were run since."""

  class Fake:
    def ran(self):
      log = tmp_path / "log"
      lines = log.read_text().splitlines() if log.exists() else []
      log.write_text("")
      return lines

    def command(self, kind, made):
      code = [sys.executable, "-c", _FAKE, kind, str(made)]
      return [*code, str(tmp_path / "log")]

  made = Fake()
  monkeypatch.setattr(
    tasks, "train", lambda config, workdir: made.command("train", workdir)
  )
  monkeypatch.setattr(
    tasks,
    "realm",
    lambda name, workdir, predictions=None, **_: made.command(
      name, predictions or workdir / "index"
    ),
  )
  return made


def started(name):
  return RunConfig(init=InitConfig(retriever=f"stage:{name}", encoder="bert"))


TABLE = Table(
  questions="q.jsonl",
  seeds=(0, 1),
  stages={
    "ict": RunConfig(),
    "realm": started("ict"),
    "orqa": started("ict"),
    "qa": started("realm"),
    "idle": started("qa"),
  },
  rows=(
    Row(name="orqa", label="ICT only", stage="orqa"),
    Row(name="realm", label="REALM", stage="qa"),
  ),
)


def test_a_shared_stage_is_trained_once_a_seed_and_nothing_twice(
  fake, tmp_path
):
  workdir = tmp_path / "table"
  found = Cells(TABLE, str(workdir)).run()

  assert fake.ran() == [
    f"{what}-{seed}"
    for seed in (0, 1)
    for what in (
      "train ict",
      "train orqa",
      "evaluate orqa",
      "train realm",
      "train qa",
      "evaluate realm",
    )
  ]
  assert [(c.row, c.seed) for c in found] == [
    ("orqa", 0),
    ("realm", 0),
    ("orqa", 1),
    ("realm", 1),
  ]
  assert list(found[1].seconds) == ["ict", "realm", "qa", "evaluation"]
  shown = json.loads((workdir / "table.json").read_text())
  assert [cell["figures"] for cell in shown] == [{"exact_match": 0.5}] * 4
  assert "| REALM | mean of 2 | 50.0 |" in (workdir / "table.md").read_text()

  again = Cells(TABLE, str(workdir)).run()
  assert fake.ran() == []
  assert again == found


def test_stages_start_from_the_workdirs_of_their_own_seed(fake, tmp_path):
  Cells(TABLE, str(tmp_path / "table")).run()
  record = tmp_path / "table" / "stages" / "qa-1.json"
  what = json.loads(record.read_text())["what"]
  assert what["seed"] == 1
  realm = tmp_path / "table" / "stages" / "realm-1"
  assert what["init"] == {"retriever": str(realm), "encoder": "bert"}


def test_seeds_share_some_stages_and_rows_have_some_seeds(fake, tmp_path):
  orqa, realm = TABLE.rows
  rows = (realm, dataclasses.replace(orqa, seeds=(1,)))
  table = dataclasses.replace(TABLE, rows=rows, once=("ict", "realm"))
  Cells(table, str(tmp_path / "table")).run()
  assert [line.removeprefix("train ") for line in fake.ran()] == [
    *("ict-0", "realm-0", "qa-0", "evaluate realm-0"),
    *("qa-1", "evaluate realm-1", "orqa-1", "evaluate orqa-1"),
  ]
  record = tmp_path / "table" / "stages" / "qa-1.json"
  start = json.loads(record.read_text())["what"]["init"]["retriever"]
  assert start == str(tmp_path / "table" / "stages" / "realm-0")


def test_a_retriever_that_trained_without_an_index_gets_one(fake, tmp_path):
  table = Table(
    questions="q.jsonl",
    stages={"ict": RunConfig(stage="ict")},
    rows=(Row(name="ict", label="", stage="ict"),),
  )
  Cells(table, str(tmp_path / "table")).run()
  assert fake.ran() == ["train ict-0", "build-index index", "evaluate ict-0"]
  (cell,) = Cells(table, str(tmp_path / "table")).run()
  assert fake.ran() == []
  assert list(cell.seconds) == ["ict", "index", "evaluation"]
  assert cell.seconds["index"] > 0


def test_what_is_trained_anew_or_asked_otherwise_is_scored_anew(fake, tmp_path):
  questions = tmp_path / "q.jsonl"
  questions.write_text("{}")
  table = dataclasses.replace(TABLE, questions=str(questions), seeds=(0,))
  Cells(table, str(tmp_path / "table")).run()
  fake.ran()
  for made in (tmp_path / "table" / "stages").glob("qa-0*"):
    shutil.rmtree(made) if made.is_dir() else made.unlink()
  Cells(table, str(tmp_path / "table")).run()
  assert fake.ran() == ["train qa-0", "evaluate realm-0"]
  questions.write_text("{} ")
  Cells(table, str(tmp_path / "table")).run()
  assert fake.ran() == ["evaluate orqa-0", "evaluate realm-0"]


def test_rows_are_compared_with_others_of_their_own_seed(
  fake, tmp_path, monkeypatch
):
  def differences(ours, theirs):
    assert ours.parent == theirs.parent == tmp_path / "table" / "rows"
    return {"exact_match": 0.02, "of": [ours.name, theirs.name]}

  monkeypatch.setattr(cells, "differences", differences)
  orqa, realm = TABLE.rows
  rows = (orqa, dataclasses.replace(realm, against="orqa"))
  table = dataclasses.replace(TABLE, rows=rows)
  found = Cells(table, str(tmp_path / "table")).run()
  assert [cell.gains.get("of") for cell in found] == [
    None,
    ["realm-0.jsonl", "orqa-0.jsonl"],
    None,
    ["realm-1.jsonl", "orqa-1.jsonl"],
  ]
  shown = (tmp_path / "table" / "table.md").read_text()
  assert "| REALM, beyond: ICT only | 0 | +2.0 |" in shown


def test_a_table_goes_on_where_it_failed(fake, tmp_path, monkeypatch):
  monkeypatch.setenv("FAILING", "qa-0")
  with pytest.raises(SystemExit) as failed:
    Cells(TABLE, str(tmp_path / "table")).run()
  assert failed.value.code == 3
  assert fake.ran()[-1] == "train qa-0"
  assert "ICT only" in (tmp_path / "table" / "table.md").read_text()

  monkeypatch.delenv("FAILING")
  Cells(TABLE, str(tmp_path / "table")).run()
  assert fake.ran()[:2] == ["train qa-0", "evaluate realm-0"]


def test_other_stages_in_the_same_directory_are_refused_before_any_work(
  fake, tmp_path
):
  Cells(TABLE, str(tmp_path / "table")).run()
  fake.ran()
  raw = TABLE.to_config_dict()
  raw.stages.qa.num_steps = 7
  with pytest.raises(ValueError, match="qa-0 was trained with another config"):
    Cells(parse(raw), str(tmp_path / "table"))
  assert fake.ran() == []


def test_a_table_in_an_object_store_is_refused():
  with pytest.raises(ValueError, match=r"gs://x/y is a URL"):
    Cells(TABLE, "gs://x/y")


def test_a_table_is_printed(fake, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(cells.signal, "signal", lambda *_: None)
  cells.run_table(TABLE, str(tmp_path / "table"))
  assert "| ICT only | 0 | 50.0 |" in capsys.readouterr().out


def test_one_stage_is_trained_in_a_workdir_of_its_own(fake, tmp_path):
  made = Cells(TABLE, str(tmp_path / "table"))
  made.train("qa", 1, tmp_path / "table")
  assert fake.ran() == ["train ict-1", "train realm-1", "train table"]
  Cells(TABLE, str(tmp_path / "table")).train("qa", 1, tmp_path / "table")
  assert fake.ran() == []
