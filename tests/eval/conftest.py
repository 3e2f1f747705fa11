# SPDX-License-Identifier: Apache-2.0
"""A corpus of capitals, and tiny untrained runs of every stage over it."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from realm_jax import checkpoints, config
from realm_jax.config import (
  BertConfig,
  DataConfig,
  EmbedderConfig,
  LengthConfig,
  OpenQaConfig,
  RetrievalConfig,
  RunConfig,
)
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.tokenize import load_tokenizer, train_tokenizer
from realm_jax.index import builder
from realm_jax.train import initial

_STEP = 7
_CAPITALS = {
  "Chad": "N'Djamena",
  "Italy": "Rome",
  "São Tomé and Príncipe": "São Tomé",
  "Trinidad and Tobago": "Port of Spain",
  "Peru": "Lima",
  "Japan": "Tokyo",
  "Kenya": "Nairobi",
  "Cuba": "Havana",
  "Spain": "Madrid",
  "Nepal": "Kathmandu",
}


def _documents():
  for country, capital in _CAPITALS.items():
    yield Document(
      title=country,
      text=f"Capital (main city): {capital}, in {country}.",
      uid=f"{country}/capital",
    )
    yield Document(
      title=country,
      text=f"{country} borders the sea; {capital} lies far from it.",
      uid=f"{country}/borders",
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Holds `tokenizer`, `corpus`, `texts.jsonl` and `questions.jsonl`."""
  directory = tmp_path_factory.mktemp("eval_data")
  texts = [f"{d.title} {d.text} ? the of is" for d in _documents()]
  tokenizer = train_tokenizer(texts, 200, directory / "tokenizer")
  build_corpus(_documents(), tokenizer, directory / "corpus", max_pieces=56)
  masked, questions = [], []
  for country, capital in _CAPITALS.items():
    text = f"The capital of {country} is {capital}."
    start = text.rindex(capital)
    masked.append(
      {
        "text": text,
        "spans": [[start, start + len(capital)]],
        "source_uid": f"{country}/borders",
        "passage_uid": f"{country}/capital",
      }
    )
    questions.append(
      {
        "question": f"Which is the capital of {country}?",
        "answers": [capital.lower(), "nothing else"],
        "passage_uid": f"{country}/capital",
      }
    )
  _write_lines(directory / "texts.jsonl", masked)
  _write_lines(directory / "questions.jsonl", questions)
  return directory


def _write_lines(path, records):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return str(path)


@pytest.fixture(scope="session")
def write_lines():
  """(path, records) -> the path as a string, once the lines are there."""
  return _write_lines


@pytest.fixture(scope="session")
def corpus(data_dir):
  return PassageCorpus.open(data_dir / "corpus")


@pytest.fixture(scope="session")
def tokenizer(data_dir):
  return load_tokenizer(data_dir / "tokenizer")


@pytest.fixture(scope="session")
def run(data_dir, tokenizer):
  bert = BertConfig(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    mlp_size=32,
    max_positions=128,
  )
  return RunConfig(
    num_steps=_STEP,
    data=DataConfig(
      tokenizer=str(data_dir / "tokenizer"),
      corpus=str(data_dir / "corpus"),
    ),
    lengths=LengthConfig(query=40, passage=56, joint=88, masks=6),
    embedder=EmbedderConfig(bert=bert, dim=8, temperature=2.0),
    encoder=bert,
    retrieval=RetrievalConfig(backend="exact", num_candidates=4),
    openqa=OpenQaConfig(read=3, max_span=6, span_width=8),
  )


def _random_params(run, rng):
  """Numbers large enough that different texts come out different."""
  shapes = jax.eval_shape(
    functools.partial(initial.stage_params, run), jax.random.key(0)
  )
  return jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.3, leaf.shape).astype(leaf.dtype), shapes
  )


@pytest.fixture(scope="session")
def workdirs(tmp_path_factory, data_dir, run):
  """Stage -> the directory of an untrained run with one checkpoint."""
  root = tmp_path_factory.mktemp("runs")
  made = {}
  for seed, stage in enumerate(("ict", "mlm", "realm", "openqa")):
    held_out = "questions" if stage == "openqa" else "texts"
    data = dataclasses.replace(
      run.data, validation=str(data_dir / f"{held_out}.jsonl")
    )
    staged = dataclasses.replace(run, stage=stage, data=data)
    params = _random_params(staged, np.random.default_rng(seed))
    made[stage] = str(root / stage)
    (root / stage).mkdir()
    (root / stage / "config.json").write_text(config.dumps(staged))
    with checkpoints.CheckpointWriter(root / stage, keep=1) as writer:
      writer.save(
        _STEP, {"params": params}, checkpoints.RunPosition(data_state={})
      )
    if stage != "mlm":
      builder.build_index(made[stage])
  return made
