# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/prepare.py."""

import json

import pytest

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.prepare import edit_corpus, prepare_corpus
from realm_jax.data.tokenize import load_tokenizer
from tests.conftest import tiny_documents


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "texts.jsonl"
  rows = [{"title": d.title, "text": d.text} for d in tiny_documents()]
  path.write_text("\n".join(json.dumps(row) for row in rows))
  return str(path)


def _prepare(source, tmp_path, **changes):
  arguments = {
    "source": source,
    "output": str(tmp_path / "corpus"),
    "tokenizer_name": str(tmp_path / "tokenizer"),
    "train_vocabulary": 300,
    "max_pieces": 48,
  }
  prepare_corpus(**(arguments | changes))
  return PassageCorpus.open(arguments["output"])


def test_trains_a_vocabulary_and_builds(source, tmp_path, capsys):
  corpus = _prepare(source, tmp_path)
  corpus.check_tokenizer(load_tokenizer(tmp_path / "tokenizer"))
  assert f"{len(corpus)} passages" in capsys.readouterr().out


def test_uses_the_tokenizer_there_is(
  source, tmp_path, tiny_tokenizer, tiny_corpus
):
  tiny_tokenizer.save(tmp_path / "tokenizer")
  corpus = _prepare(source, tmp_path, train_vocabulary=0)
  corpus.check_tokenizer(tiny_tokenizer)
  assert len(corpus) == len(tiny_corpus)


def test_nothing_is_trained_over_what_is_there(
  source, tmp_path, tiny_tokenizer
):
  tiny_tokenizer.save(tmp_path / "tokenizer")
  with pytest.raises(FileExistsError, match="leave out --train_vocabulary"):
    _prepare(source, tmp_path)
  (tmp_path / "corpus").mkdir()
  with pytest.raises(FileExistsError, match="a corpus is final"):
    _prepare(source, tmp_path, train_vocabulary=0)


def test_edits_make_another_corpus_and_are_counted(
  tmp_path, tiny_corpus, capsys
):
  lines = [
    {"uid": "country-0", "title": "T", "text": "It fell."},
    {"uid": "country-1", "remove": True},
    {"uid": "new", "text": "It rose."},
    {"uid": "newer", "text": "It fell."},
  ]
  edits = tmp_path / "edits.jsonl"
  edits.write_text("\n".join(json.dumps(line) for line in lines))
  arguments = {
    "corpus": str(tiny_corpus.directory),
    "edits": str(edits),
    "output": str(tmp_path / "edited"),
  }

  edit_corpus(**arguments)

  told = " ".join(capsys.readouterr().out.split())
  edited = PassageCorpus.open(tmp_path / "edited")
  assert "2 added, 1 replaced, 1 removed" in told
  # All but the three short texts.
  assert f"unchanged: {len(edited) - 3} of {len(edited)}" in told
  assert edited.fingerprint[:12] in told
  with pytest.raises(FileExistsError, match="a corpus is final"):
    edit_corpus(**arguments)
