# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/parts.py and workers.py."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import psutil
import pytest

from realm_jax.data import parts
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.prepare import prepare_corpus
from realm_jax.data.sources import read_documents
from tests.conftest import tiny_documents

ROOT = pathlib.Path(__file__).parents[2]
_COUNTS = ("num_documents", "num_empty", "num_repeated")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  monkeypatch.setattr(parts, "CHUNK_DOCUMENTS", 7)


@pytest.fixture
def source(tmp_path):
  """Two files: with uids; without, with repetitions and an empty text."""
  named = [
    {"title": d.title, "text": d.text, "uid": d.uid} for d in tiny_documents()
  ]
  others = [{"text": "It fell."}, {"text": " "}, {"text": "It fell."}]
  others += [{"text": f"It rose in {year}."} for year in range(1900, 1920)]
  for number, rows in enumerate((named, others)):
    path = tmp_path / f"{number}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
  return str(tmp_path / "*.jsonl")


def _prepare(source, tmp_path, tokenizer, name, **changes):
  tokenizer.save(tmp_path / "tokenizer")
  arguments = {
    "source": source,
    "output": str(tmp_path / name),
    "tokenizer_name": str(tmp_path / "tokenizer"),
    "train_vocabulary": 0,
    "max_pieces": 48,
  }
  prepare_corpus(**(arguments | changes))
  return _facts(tmp_path / name)


def _facts(directory):
  manifest = json.loads((directory / "MANIFEST.json").read_text())
  return [manifest[name] for name in ("fingerprint", *_COUNTS)]


@pytest.fixture
def expected(source, tmp_path, tiny_tokenizer):
  """Of a corpus made in one go."""
  documents = read_documents(source)
  build_corpus(documents, tiny_tokenizer, tmp_path / "one_go", 48)
  return _facts(tmp_path / "one_go")


def test_processes_make_the_corpus_that_one_makes(
  source, tmp_path, tiny_tokenizer, expected
):
  made = _prepare(source, tmp_path, tiny_tokenizer, "c", workers=2)
  assert made == expected
  assert made[1:] == [63, 1, 1]
  assert not parts.parts_folder(tmp_path / "c").exists()


@pytest.mark.skipif(
  importlib.util.find_spec("apache_beam") is None,
  reason="needs realm-jax[beam]",
)
def test_a_beam_pipeline_makes_the_same(
  source, tmp_path, tiny_tokenizer, expected
):
  options = ["--runner=DirectRunner"]
  made = _prepare(source, tmp_path, tiny_tokenizer, "c", beam=options)
  assert made == expected


@pytest.mark.skipif(
  importlib.util.find_spec("apache_beam") is not None, reason="Beam is there"
)
def test_without_beam_it_says_what_to_install(source, tmp_path, tiny_tokenizer):
  with pytest.raises(ValueError, match=r"realm-jax\[beam\]"):
    _prepare(source, tmp_path, tiny_tokenizer, "c", beam=["--runner=x"])


def test_what_was_begun_otherwise_is_refused(source, tmp_path, tiny_tokenizer):
  folder = parts.parts_folder(tmp_path / "c")
  parts.begin(folder, tiny_tokenizer, 40, {"source": []})
  with pytest.raises(ValueError, match="max_pieces: 40 there, 48 now"):
    _prepare(source, tmp_path, tiny_tokenizer, "c")


def test_a_uid_that_occurs_twice_names_its_origin(
  tmp_path, tiny_tokenizer, monkeypatch
):
  monkeypatch.setattr(parts, "CHUNK_DOCUMENTS", 9)
  line = json.dumps({"uid": "a", "text": "It fell."})
  (tmp_path / "x.jsonl").write_text(f"{line}\n{line}")
  with pytest.raises(ValueError, match=r"x\.jsonl:2: the uid 'a' occurs twice"):
    _prepare(str(tmp_path / "x.jsonl"), tmp_path, tiny_tokenizer, "c")


def test_a_killed_build_goes_on_and_leaves_no_process(
  tmp_path, tiny_tokenizer, monkeypatch
):
  monkeypatch.setattr(parts, "CHUNK_DOCUMENTS", 500)  # As in the process.
  text = " ".join(document.text for document in tiny_documents())
  source = tmp_path / "x.jsonl"
  with source.open("w") as file:
    for i in range(4000):
      file.write(json.dumps({"text": f"In {i} it fell. {text[:120]}"}) + "\n")
  tiny_tokenizer.save(tmp_path / "tokenizer")
  flags = {"source": source, "output": tmp_path / "c"}
  flags |= {"tokenizer": tmp_path / "tokenizer", "max_pieces": 48, "workers": 2}
  words = [f"--{name}={value}" for name, value in flags.items()]
  process = subprocess.Popen(
    [sys.executable, "-m", "realm_jax.cli", "prepare-corpus", *words], cwd=ROOT
  )
  folder = parts.parts_folder(tmp_path / "c")
  while len(list(folder.glob(parts.PARTS))) < 2:
    assert process.poll() is None
    time.sleep(0.005)
  children = psutil.Process(process.pid).children(recursive=True)
  process.kill()
  process.wait()
  _, alive = psutil.wait_procs(children, timeout=60)
  assert len(children) >= 2 and not alive
  assert not (tmp_path / "c").exists()
  kept = {p: p.stat().st_mtime_ns for p in folder.glob(parts.PARTS)}
  assert 2 <= len(kept) < 8

  found = {}
  assemble = parts.assemble
  monkeypatch.setattr(
    "realm_jax.data.prepare.assemble",
    lambda folder, *rest: (
      found.update({p: p.stat().st_mtime_ns for p in kept}),
      assemble(folder, *rest),
    )[1],
  )
  made = _prepare(str(source), tmp_path, tiny_tokenizer, "c", workers=2)

  assert found == kept  # None was made again.
  documents = read_documents(str(source))
  build_corpus(documents, tiny_tokenizer, tmp_path / "one_go", 48)
  assert made == _facts(tmp_path / "one_go")
