# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.config import (
  BertConfig,
  EmbedderConfig,
  LengthConfig,
  MeshConfig,
  RunConfig,
)

# `make_run` gives every stage's config over the tiny corpus.
from tests.train.conftest import folder, make_run  # noqa: F401

BERT = BertConfig(
  vocab_size=2048,
  hidden_size=128,
  num_layers=4,
  num_heads=4,
  mlp_size=512,
  max_positions=128,
  dropout=0.0,
  attention_dropout=0.0,
)


@pytest.fixture(scope="session")
def reading_run():
  """A run of one stack, without any data: a few million parameters."""
  return RunConfig(
    stage="mlm",
    num_steps=100,
    batch_size=64,
    lengths=LengthConfig(query=64, passage=96, joint=128, masks=10),
    embedder=EmbedderConfig(bert=BERT, dim=16),
    encoder=BERT,
    mesh=MeshConfig(),
  )
