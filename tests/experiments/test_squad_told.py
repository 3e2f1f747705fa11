# SPDX-License-Identifier: Apache-2.0
import json

from experiments.squad_open import told
from realm_jax.data.corpus import build_corpus
from realm_jax.data.records import Document

_TEXTS = {
  "Peru": [
    "Lima was founded by Francisco Pizarro. It lies on the coast.",
    "In 1541 Francisco Pizarro was killed. Machu Picchu is high.",
    "Its highest point is Huascarán.",
  ],
  "Spain": ["Francisco Pizarro was born here. So was Diego de Almagro."],
}


def _corpus(tiny_tokenizer, tmp_path):
  documents = [
    Document(title=title, text=text, uid=f"{title}/{number}")
    for title, texts in _TEXTS.items()
    for number, text in enumerate(texts)
  ]
  return build_corpus(documents, tiny_tokenizer, tmp_path / "corpus", 96)


def test_what_stands_in_two_passages_of_an_article_is_told(
  tiny_tokenizer, tmp_path
):
  found = list(told.told_sentences(_corpus(tiny_tokenizer, tmp_path)))
  assert [(one.text, one.uid) for one in found] == [
    ("Lima was founded by Francisco Pizarro.", "Peru/0"),
    ("In 1541 Francisco Pizarro was killed.", "Peru/1"),
  ]
  for one, other in zip(found, ("Peru/1", "Peru/0"), strict=True):
    # Spain's passage holds the name, too, and is of another article.
    (((start, end), uids),) = one.holders.items()
    assert one.text[start:end] == "Francisco Pizarro"
    assert uids == [other]


def test_names_that_stand_in_many_passages_are_not(tiny_tokenizer, tmp_path):
  documents = [
    Document(title="Peru", text=f"In {1500 + i} it fell to Francisco Pizarro.")
    for i in range(13)
  ]
  folder = tmp_path / "corpus"
  corpus = build_corpus(documents, tiny_tokenizer, folder, 96)
  assert list(told.told_sentences(corpus)) == []


def test_texts_stand_beside_the_passage_that_tells_or_name_their_own(
  tiny_tokenizer, tmp_path
):
  folder = tmp_path / "texts"
  told.write(_corpus(tiny_tokenizer, tmp_path), folder)

  def sources(name):
    lines = (folder / name).read_text().splitlines()
    return [json.loads(line)["source_uid"] for line in lines]

  own, others = ["Peru/0", "Peru/1"], ["Peru/1", "Peru/0"]
  assert sources(told.PRETRAINING) == own
  assert sources(told.READING) == own + others
