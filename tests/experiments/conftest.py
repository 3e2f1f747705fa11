# SPDX-License-Identifier: Apache-2.0
"""The real factbook, prepared as the demo prepares it, once a session."""

import pytest

from experiments.factbook_demo import examples, settings
from experiments.factbook_demo.facts import extract_facts
from realm_jax.data.corpus import build_corpus
from realm_jax.data.tokenize import train_tokenizer


@pytest.fixture(scope="session")
def documents():
  return examples.demo_documents()


@pytest.fixture(scope="session")
def few_documents(documents):
  fields = {"capital", "coastline", "elevation", "population"}
  return [one for one in documents if one.uid.rpartition("/")[2] in fields]


@pytest.fixture(scope="session")
def facts(documents):
  return extract_facts(documents)


@pytest.fixture(scope="session")
def tokenizer(documents, tmp_path_factory):
  return train_tokenizer(
    (f"{document.title} {document.text}" for document in documents),
    settings.VOCABULARY,
    tmp_path_factory.mktemp("factbook") / "tokenizer",
  )


@pytest.fixture(scope="session")
def corpus(documents, tokenizer, tmp_path_factory):
  directory = tmp_path_factory.mktemp("factbook") / "corpus"
  return build_corpus(documents, tokenizer, directory, settings.LENGTHS.passage)


@pytest.fixture(scope="session")
def placed(facts, corpus, tokenizer):
  return examples.place_facts(
    facts, corpus, tokenizer, settings.LENGTHS.query - 2
  )
