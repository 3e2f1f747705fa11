# SPDX-License-Identifier: Apache-2.0
"""A corpus in an object store, or on a file system of the network."""

import gc
import json
import shutil

import numpy as np
import pytest

from realm_jax import files
from realm_jax.checksums import StoredFile
from realm_jax.data import corpus_writer, prepare
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.mirror import CORPORA, HostCopy
from tests.conftest import tiny_documents


def build(directory, tokenizer):
  return build_corpus(tiny_documents(), tokenizer, directory, max_pieces=48)


def assert_same(found, expected):
  assert found.fingerprint == expected.fingerprint
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  rows = range(len(expected))
  assert found.passages(rows) == expected.passages(rows)
  assert found.row_of("country-7") == expected.row_of("country-7")


def test_a_corpus_opens_elsewhere_as_on_this_host(
  place, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch
):
  written = build(place / "corpus", tiny_tokenizer)
  assert_same(written, tiny_corpus)
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "another host"))
  opened = PassageCorpus.open(place / "corpus")
  assert_same(opened, tiny_corpus)
  assert opened.directory == place / "corpus"
  assert opened.folder.is_relative_to(tmp_path / "another host")


def test_a_copied_directory_is_a_corpus_too(place, tiny_corpus):
  for name in files.sizes(tiny_corpus.directory):
    files.upload(tiny_corpus.folder / name, place / "corpus" / name)
  assert_same(PassageCorpus.open(place / "corpus"), tiny_corpus)


def test_the_writers_host_copies_nothing(place, tiny_tokenizer, monkeypatch):
  monkeypatch.setattr(files, "download", None)
  build(place / "corpus", tiny_tokenizer)
  PassageCorpus.open(place / "corpus")


def test_it_brings_its_tokenizer(place, tiny_tokenizer):
  build(place / "corpus", tiny_tokenizer)
  loaded = load_tokenizer(place / "corpus")
  assert loaded.fingerprint == tiny_tokenizer.fingerprint


def test_a_build_that_was_killed_while_sending_is_no_corpus_and_no_hindrance(
  place, tiny_tokenizer, tiny_corpus, monkeypatch
):
  sent = []

  def send(self, path, send=HostCopy.send):
    sent.append(path.name)
    if path.name == corpus_writer.MANIFEST:
      raise OSError("killed")
    send(self, path)

  with monkeypatch.context() as patch:
    patch.setattr(HostCopy, "send", send)
    with pytest.raises(OSError, match=r"cannot write the corpus .*killed"):
      build(place / "corpus", tiny_tokenizer)
  assert sent[-1] == corpus_writer.MANIFEST
  with pytest.raises(FileNotFoundError, match="has no MANIFEST"):
    PassageCorpus.open(place / "corpus")
  assert_same(build(place / "corpus", tiny_tokenizer), tiny_corpus)
  with pytest.raises(FileExistsError, match="a corpus is final"):
    build(place / "corpus", tiny_tokenizer)


def test_a_flipped_byte_is_never_read(place, tiny_tokenizer, tmp_path):
  copy = build(place / "corpus", tiny_tokenizer).folder
  gc.collect()
  whole = (copy / "tokens.bin").read_bytes()
  (copy / "tokens.bin").write_bytes(b"\0" + whole[1:])
  opened = PassageCorpus.open(place / "corpus")
  assert opened.tokens.tobytes() == whole
  shutil.rmtree(copy)
  (place / "corpus/tokens.bin").write_bytes(b"\0" + whole[1:])
  with pytest.raises(ValueError, match=r"/corpus/tokens\.bin is damaged"):
    PassageCorpus.open(place / "corpus")


def test_a_corpus_without_checksums_is_read_where_it_is_and_not_copied(
  nfs, tiny_tokenizer, monkeypatch
):
  build(nfs / "corpus", tiny_tokenizer)
  path = nfs / "corpus" / corpus_writer.MANIFEST
  manifest = json.loads(path.read_text())
  del manifest["files"]
  path.write_text(json.dumps(manifest))
  with pytest.raises(ValueError, match="before corpora listed their files"):
    PassageCorpus.open(nfs / "corpus")
  monkeypatch.delenv("REALM_COPY")
  assert PassageCorpus.open(nfs / "corpus").folder == nfs / "corpus"


def test_an_open_corpus_stays_and_a_closed_one_makes_room(
  nfs, tiny_tokenizer, tmp_path
):
  opened = build(nfs / "one", tiny_tokenizer)
  build(nfs / "two", tiny_tokenizer)
  gc.collect()
  huge = StoredFile(path="huge", num_bytes=10**18, sha256="")
  copy = HostCopy(CORPORA, nfs / "three")
  with copy.in_use(), pytest.raises(OSError, match="REALM_CACHE"):
    copy.fetch([huge], checksums=True)
  left = (tmp_path / "cache").glob("corpora/*/tokens.bin")
  assert [path.parent for path in left] == [opened.folder]


def test_it_is_prepared_and_edited_from_a_command(
  url, tiny_tokenizer, tmp_path, capsys
):
  tiny_tokenizer.save(f"{tmp_path}/tokenizer")
  source, edits = tmp_path / "texts.jsonl", tmp_path / "edits.jsonl"
  source.write_text(json.dumps({"text": "It fell.", "uid": "a"}) + "\n")
  edits.write_text(json.dumps({"uid": "b", "text": "It rose."}) + "\n")
  arguments = {
    "source": str(source),
    "output": f"{url}/corpus",
    "tokenizer_name": f"{tmp_path}/tokenizer",
    "train_vocabulary": 0,
    "max_pieces": 48,
  }
  with pytest.raises(ValueError, match="--beam's workers share a folder"):
    prepare.prepare_corpus(**arguments, beam=["--runner=DirectRunner"])
  prepare.prepare_corpus(**arguments)
  prepare.edit_corpus(
    corpus=f"{url}/corpus", edits=str(edits), output=f"{url}/edited"
  )
  edited = PassageCorpus.open(f"{url}/edited")
  assert [p.uid for p in edited.passages([0, 1])] == ["a", "b"]
  # What it was made of is gone, on the host as in the store.
  assert not list((tmp_path / "cache/corpora").glob(".*"))
  assert f"{url}/edited: 2 passages" in capsys.readouterr().out
