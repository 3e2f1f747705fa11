# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/tagging/job.py, and of the command, as a process."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from realm_jax.config import LengthConfig, RunConfig
from realm_jax.data import pretrain
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.entities import LabeledSpan
from realm_jax.data.records import Document
from realm_jax.data.tagged import SETTINGS, STATISTICS
from realm_jax.tagging import command
from realm_jax.tagging.job import read_texts, tag_spans
from realm_jax.tagging.taggers import open_tagger

ROOT = pathlib.Path(__file__).parents[2]
_TEXT = "É! Anna went to Paris in May 1999. It was the sea. Lee was in York."


class _Capitals:
  """Marks one-word names, and nothing that starts a sentence."""

  fingerprint = "capitals"

  def tag(self, sentences):
    return [
      [
        LabeledSpan(place, place + len(word), "NAME")
        for place, word in _words(sentence)
        if place and word[0].isupper()
      ]
      for sentence in sentences
    ]


def _words(sentence):
  place = 0
  for word in sentence.split(" "):
    yield place, word.rstrip(".,")
    place += len(word) + 1


def _tag(output, texts, **changes):
  arguments = {"facts": {"source": "a"}, "part_texts": 3}
  return tag_spans(texts, _Capitals(), str(output), **(arguments | changes))


def _documents(count):
  return [
    Document(title=f"T{i}", text=f"In {1900 + i} they saw Paris. It fell.")
    for i in range(count)
  ]


def test_spans_and_sentences_are_kept_in_bytes(tmp_path):
  statistics = _tag(tmp_path / "a", [Document(title="", text=_TEXT, uid="u")])
  (line,) = (tmp_path / "a" / "part-000000.jsonl").read_text().splitlines()
  found = json.loads(line)
  data = _TEXT.encode()

  def cut(name):
    return [data[start:end].decode() for start, end in found[name]]

  assert found["text"] == _TEXT and found["source_uid"] == "u"
  assert cut("byte_spans") == ["Paris", "May 1999", "York"]
  assert found["labels"] == ["NAME", "DATE", "NAME"]
  assert " ".join(cut("byte_sentences")) == _TEXT
  assert statistics == json.loads((tmp_path / "a" / STATISTICS).read_text())
  assert statistics["labels"]["NAME"] == {
    "spans": 2,
    "commonest": [["Paris", 1], ["York", 1]],
  }
  assert (statistics["spans"], statistics["sentences_with_spans"]) == (3, 2)


def test_texts_without_spans_are_left_out_and_counted(tmp_path):
  texts = [Document(title="", text="It fell."), *_documents(1)]
  statistics = _tag(tmp_path / "a", texts, part_texts=1)
  assert (statistics["texts"], statistics["texts_read"]) == (1, 2)
  # Its part has no line, and is no obstacle to reading.
  assert len(pretrain.MaskedTexts(str(tmp_path / "a"))) == 1


def test_processes_share_the_parts_and_make_the_same_files(tmp_path):
  alone = _tag(tmp_path / "alone", _documents(8))
  shared = {"num_processes": 2}
  assert (
    _tag(tmp_path / "shared", _documents(8), process_id=1, **shared) is None
  )
  with pytest.raises(ValueError, match="is not finished"):
    pretrain.MaskedTexts(str(tmp_path / "shared"))
  assert _tag(tmp_path / "shared", _documents(8), **shared) == alone
  assert _contents(tmp_path / "shared") == _contents(tmp_path / "alone")


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_begun_otherwise_is_refused(tmp_path):
  _tag(tmp_path, _documents(1))
  with pytest.raises(ValueError, match="part_texts: 3 there, 4 now"):
    _tag(tmp_path, _documents(1), part_texts=4)
  with pytest.raises(ValueError, match="source: 'a' there, 'b' now"):
    _tag(tmp_path, _documents(1), facts={"source": "b"})


def test_a_corpus_gives_its_passages_with_their_uids(tiny_corpus):
  texts = list(read_texts("", str(tiny_corpus.directory)))
  assert [tiny_corpus.row_of(t.uid) for t in texts] == [
    *range(len(tiny_corpus))
  ]
  assert texts[3].text == tiny_corpus.passage(3).text


def test_rules_need_no_model():
  (spans,) = open_tagger("rules", "float32").tag(["In 1999 they saw Paris."])
  assert [span.start for span in spans] == [3, 17]


_RUN = RunConfig(lengths=LengthConfig(query=24, passage=48, joint=72, masks=4))


def test_text_of_one_corpus_is_asked_of_another(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  """X and Z are independent: none of these texts is in the corpus."""
  _tag(tmp_path / "spans", _documents(4))
  other = [Document(title="Z", text="Nothing of the kind.", uid="z")]
  knowledge = build_corpus(other, tiny_tokenizer, tmp_path / "z", 48)
  queries = pretrain.masked_queries(
    _RUN, tiny_tokenizer, knowledge, str(tmp_path / "spans"), train=False
  )
  for i, example in enumerate([queries[i] for i in range(4)]):
    assert example["source_row"] == -1
    query = tiny_tokenizer.tokens(example["query"]["ids"])
    # The sentence of the span alone, and of it only the span is masked.
    plain = tiny_tokenizer.encode(f"In {1900 + i} they saw Paris.")
    expected = ["[CLS]", *tiny_tokenizer.tokens(plain.ids), "[SEP]"]
    masked = [m for m, token in enumerate(query) if token == "[MASK]"]
    first, last = plain.starts[masked[0] - 1], plain.ends[masked[-1] - 1]
    assert (first, last) in ((3, 7), (17, 22))
    kept = [m for m in range(len(expected)) if m not in masked]
    assert [query[m] for m in kept] == [expected[m] for m in kept]


def test_the_text_s_own_passage_is_known_by_its_uid(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  _tag(tmp_path / "a", read_texts("", str(tiny_corpus.directory)))
  queries = pretrain.masked_queries(
    _RUN, tiny_tokenizer, tiny_corpus, str(tmp_path / "a"), train=False
  )
  texts = pretrain.MaskedTexts(str(tmp_path / "a"))
  for i in range(len(texts)):
    row = tiny_corpus.row_of(texts[i].source_uid)
    assert queries[i]["source_row"] == row


def test_a_killed_process_goes_on_where_it_was(tmp_path, classifier):
  source = tmp_path / "texts.jsonl"
  count = 200
  lines = [f"Anna went to New York in {1000 + i}." for i in range(count)]
  source.write_text("\n".join(json.dumps({"text": line}) for line in lines))
  killed = tmp_path / "killed"
  arguments = {"tagger": classifier, "source": source, "part_texts": 10}
  flags = [f"--{name}={value}" for name, value in arguments.items()]
  words = [sys.executable, "-m", "realm_jax.cli", "tag-spans", *flags]
  process = subprocess.Popen([*words, f"--output={killed}"], cwd=ROOT)
  while not (killed / "part-000001.jsonl").exists():
    assert process.poll() is None
    time.sleep(0.001)
  process.kill()
  process.wait()
  kept = {p: p.stat().st_mtime_ns for p in killed.glob("part-*")}
  assert 2 <= len(kept) < count // 10
  assert not (killed / STATISTICS).exists()

  for output in (killed, tmp_path / "whole"):
    command.run(
      **{**arguments, "source": str(source), "output": str(output)},
      corpus="",
      dtype="float32",
      process_id=0,
      num_processes=1,
    )

  assert {p: p.stat().st_mtime_ns for p in kept} == kept
  parts = {n: c for n, c in _contents(killed).items() if not n.startswith(".")}
  assert parts == _contents(tmp_path / "whole")
  assert SETTINGS in parts and len(parts) == count // 10 + 2
  labels = json.loads(parts[STATISTICS])["labels"]
  found = {label: labels[label]["spans"] for label in labels}
  assert found == {"DATE": count, "LOC": count, "PER": count}
