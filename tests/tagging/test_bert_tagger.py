# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/tagging/bert_tagger.py."""

import numpy as np
import pytest

from realm_jax.tagging import bert_tagger
from realm_jax.tagging.bert_tagger import BertTagger
from tests.tagging.conftest import write_classifier


@pytest.fixture(scope="module")
def tagger(classifier):
  return BertTagger(classifier)


def _found(tagger, sentence):
  (spans,) = tagger.tag([sentence])
  return [(sentence[s.start : s.end], s.label) for s in spans]


@pytest.mark.parametrize(
  ("sentence", "expected"),
  [
    ("Anna went to Paris.", [("Anna", "PER"), ("Paris", "LOC")]),
    ("Anna Lee was in New York.", [("Anna Lee", "PER"), ("New York", "LOC")]),
    # A word has the label of its first piece, and is marked whole.
    ("The Annabel went", [("Annabel", "PER")]),
    # One name ends where another begins.
    ("Paris, Paris Paris", [("Paris", "LOC")] * 3),
    ("It went to the sea.", []),
    ("", []),
    # Characters of two bytes, and a capital that is folded.
    ("é é PARIS é", [("PARIS", "LOC")]),
  ],
)
def test_names_are_found_with_their_characters(tagger, sentence, expected):
  assert _found(tagger, sentence) == expected


def test_a_sentence_s_spans_do_not_depend_on_its_company(tagger):
  words = ["Anna", "Lee", "Paris", "went", "New", "York", "the"]
  rng = np.random.default_rng(0)
  sentences = [
    " ".join(rng.choice(words, size=rng.integers(1, 20))) for _ in range(300)
  ]
  alone = [tagger.tag([sentence])[0] for sentence in sentences[:20]]
  together = tagger.tag(sentences)
  assert together[:20] == alone
  assert tagger.tag(sentences[::-1])[::-1] == together


def test_a_sentence_of_any_length_is_read_to_its_end(tagger):
  sentence = "the " * 50 + "Annabel went to " + "Paris " * 40
  assert (
    _found(tagger, sentence) == [("Annabel", "PER")] + [("Paris", "LOC")] * 40
  )
  # One word longer than a row.
  assert _found(tagger, "Anna" + "bel" * 30) == [("Anna" + "bel" * 30, "PER")]


def test_shapes_are_few(tagger):
  sentences = ["Paris " * n for n in range(1, 23)]
  tagger.tag(sentences)
  shapes = {length for length in bert_tagger._LENGTHS if length <= 24}
  assert tagger._classify._cache_size() <= len(shapes)


def test_the_fingerprint_tells_checkpoints_apart(tagger, classifier, tmp_path):
  assert BertTagger(classifier).fingerprint == tagger.fingerprint
  assert BertTagger(classifier, dtype="bfloat16").fingerprint != (
    tagger.fingerprint
  )
  labels = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")
  write_classifier(tmp_path, id2label=dict(enumerate(labels)))
  other = BertTagger(str(tmp_path))
  assert other.fingerprint != tagger.fingerprint
  assert _found(other, "in Paris") == [("Paris", "ORG")]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"id2label": {"0": "O"}}, "id2label must name the 5 labels"),
    ({"id2label": {}}, "id2label must name the 5 labels"),
    ({"model_type": "roberta"}, "model_type must be 'bert'"),
    ({"vocab_size": 40}, r"token_embed/embedding \(\d+, 32\) instead of"),
  ],
)
def test_what_is_no_classifier_is_refused(tmp_path, settings, message):
  write_classifier(tmp_path, **settings)
  with pytest.raises(ValueError, match=message):
    BertTagger(str(tmp_path))
