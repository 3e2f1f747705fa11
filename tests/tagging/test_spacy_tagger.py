# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/tagging/spacy_tagger.py; most need spaCy."""

import importlib.util

import pytest

from realm_jax.data.entities import LabeledSpan
from realm_jax.tagging.taggers import open_tagger

_HAS_SPACY = importlib.util.find_spec("spacy") is not None


@pytest.mark.skipif(_HAS_SPACY, reason="spaCy is installed")
def test_without_spacy_it_says_what_to_install():
  with pytest.raises(ValueError, match=r"realm-jax\[spacy\]"):
    open_tagger("spacy:en_core_web_sm", "float32")


@pytest.mark.skipif(not _HAS_SPACY, reason="needs realm-jax[spacy]")
def test_a_pipeline_marks_its_entities(tmp_path):
  import spacy

  pipeline = spacy.blank("en")
  rules = pipeline.add_pipe("entity_ruler")
  rules.add_patterns([{"label": "GPE", "pattern": "New York"}])
  pipeline.to_disk(tmp_path)

  tagger = open_tagger(f"spacy:{tmp_path}", "float32")

  sentences = ["É: New York fell.", "", "It fell."]
  assert tagger.tag(sentences) == [[LabeledSpan(3, 11, "GPE")], [], []]
  assert (
    tagger.fingerprint
    == open_tagger(f"spacy:{tmp_path}", "float32").fingerprint
  )
  rules.add_patterns([{"label": "GPE", "pattern": "York"}])
  pipeline.to_disk(tmp_path)
  assert (
    tagger.fingerprint
    != open_tagger(f"spacy:{tmp_path}", "float32").fingerprint
  )


@pytest.mark.skipif(not _HAS_SPACY, reason="needs realm-jax[spacy]")
def test_an_unknown_pipeline_is_named():
  with pytest.raises(ValueError, match="no pipeline 'nothing_there'"):
    open_tagger("spacy:nothing_there", "float32")
