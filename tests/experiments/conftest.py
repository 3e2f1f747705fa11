# SPDX-License-Identifier: Apache-2.0
"""The real factbook, prepared as the demo prepares it, once a session."""

import pytest

from experiments.factbook_demo import examples, settings
from experiments.factbook_demo.facts import extract_facts
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.tokenize import train_tokenizer


@pytest.fixture(scope="session")
def documents():
  return examples.demo_documents()


@pytest.fixture(scope="session")
def facts(documents):
  return extract_facts(documents)


@pytest.fixture(scope="session")
def few_documents(documents):
  """Of six fields, enough to place two thousand facts."""
  fields = {"capital", "coastline", "executive-branch", "independence"}
  fields |= {"elevation", "national-holiday"}
  return [one for one in documents if one.uid.rpartition("/")[2] in fields]


@pytest.fixture(scope="session")
def tokenizer(few_documents, tmp_path_factory):
  return train_tokenizer(
    (f"{document.title} {document.text}" for document in few_documents),
    settings.VOCABULARY,
    tmp_path_factory.mktemp("factbook") / "tokenizer",
  )


@pytest.fixture(scope="session")
def corpus(few_documents, tokenizer, tmp_path_factory):
  directory = tmp_path_factory.mktemp("factbook") / "corpus"
  return build_corpus(
    few_documents, tokenizer, directory, settings.LENGTHS.passage
  )


@pytest.fixture(scope="session")
def placed(few_documents, corpus, tokenizer):
  return examples.place_facts(
    extract_facts(few_documents),
    corpus,
    tokenizer,
    settings.LENGTHS.query - 2,
  )
