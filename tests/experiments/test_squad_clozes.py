# SPDX-License-Identifier: Apache-2.0
import json
import random

from experiments.squad_open import clozes
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document

_TEXT = (
  "Lima, the capital, was founded by Francisco Pizarro and twelve others. It "
  "lies on the coast. Peru was his; he was killed in 1541."
)


def test_a_cloze_is_half_a_sentence_and_one_of_its_spans(
  tiny_tokenizer, tmp_path
):
  documents = [
    Document(title="Peru", text=_TEXT, uid="peru"),
    Document(title="Ica", text="the way from Lima is long", uid="ica"),
  ]
  folder = tmp_path / "corpus"
  corpus = build_corpus(documents, tiny_tokenizer, folder, 96)
  clozes.write(corpus, tmp_path / "texts")
  clozes.write(corpus, tmp_path / "again")

  written = (tmp_path / "texts" / clozes.FILE).read_text()
  assert written == (tmp_path / "again" / clozes.FILE).read_text()
  lines = [json.loads(line) for line in written.splitlines()]
  # Of the second sentence there is nothing to ask, of the third not the title.
  assert [line["source_uid"] for line in lines] == ["peru", "peru", "ica"]
  asked = []
  for line in lines[:2]:
    ((start, end),) = line["spans"]
    asked.append(line["text"][start:end])
    words = iter(_TEXT.split())
    for word in f"{line['text'][:start]} {line['text'][end:]}".split():
      assert word in words  # In their order.
  # Lima is in two passages, and its founder in one.
  assert asked == ["Francisco Pizarro", "1541"]


def test_words_go_at_random_and_the_span_stays():
  rng, text = random.Random(1), "a b c (The Hague), d e f"
  span = (text.index("The"), text.index(")"))
  seen, kept = set(), 0
  for _ in range(400):
    found, (start, end) = clozes.thinned(text, span, rng)
    assert found[start:end] == "The Hague"
    seen.add(found)
    kept += len(found.split()) - 2
  assert 0.45 < kept / (400 * 8) < 0.55  # Of eight words.
  assert len(seen) > 150
