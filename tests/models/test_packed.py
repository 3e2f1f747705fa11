# SPDX-License-Identifier: Apache-2.0
"""What a model says of a row does not depend on what shares its line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.data.packing import Packing
from realm_jax.models import packed
from realm_jax.models.bert import BertEncoder
from realm_jax.models.embedder import Embedder
from realm_jax.models.reader import KnowledgeAugmentedEncoder, SpanReader

BERT = {
  "vocab_size": 40,
  "hidden_size": 16,
  "num_layers": 2,
  "num_heads": 2,
  "mlp_size": 24,
  "max_positions": 12,  # Less than a line: places count from a row's start.
}
VARIANTS = {
  "bert": {},
  "copying": {"norm": "pre", "positions": "relative", "init": "copying"},
}


@pytest.fixture
def plain():
  rng = np.random.default_rng(0)
  mask = np.arange(12) < np.array([12, 3, 7, 1, 9, 5])[:, None]
  return {
    "ids": jnp.int32(rng.integers(1, 40, mask.shape) * mask),
    "segments": jnp.int32(rng.integers(0, 2, mask.shape) * mask),
    "mask": jnp.asarray(mask),
  }


@pytest.fixture
def lines(plain):
  # 16 tokens a line: two or three rows on each, and lines to spare.
  rows = Packing(16, (5,)).pack(jax.tree.map(np.asarray, plain), 0)
  return jax.tree.map(jnp.asarray, rows)


def _apply(module, params, rows, **fields):
  return module.apply({"params": params}, **rows, **fields, deterministic=True)


def _equal(left, right):
  np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5)


def test_rows_share_lines(lines):
  assert (lines["mask"].max(axis=1) > 1).any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_those_of_plain_rows(
  variant, pooling, plain, lines, random_params
):
  bert = BertConfig(**BERT, **VARIANTS[variant])
  module = Embedder(EmbedderConfig(bert=bert, dim=5, pooling=pooling))
  params = random_params(module, **plain)

  _equal(_apply(module, params, lines), _apply(module, params, plain))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_those_of_plain_rows(
  variant, plain, lines, random_params
):
  module = KnowledgeAugmentedEncoder(BertConfig(**BERT, **VARIANTS[variant]))
  positions = jnp.array([[0, 11], [2, 0], [3, 6], [0, 0], [8, 1], [4, 4]])
  params = random_params(module, **plain, positions=positions)
  weights = np.random.default_rng(1).normal(size=(6, 2, 40)).astype("f4")

  def total(params, rows):
    logits = _apply(module, params, rows, positions=positions)
    return (logits * weights).sum(), logits

  take = jax.jit(jax.value_and_grad(total, has_aux=True))
  (_, logits), grads = take(params, lines)
  (_, expected), expected_grads = take(params, plain)

  _equal(logits, expected)
  for got, want in zip(
    jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
  ):
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_span_scores_are_those_of_plain_rows(plain, lines, random_params):
  module = SpanReader(BertConfig(**BERT), max_span=3, span_width=4)
  block = plain["mask"] & (jnp.arange(12)[None] > 1)
  params = random_params(module, **plain, block_mask=block)

  def total(params, rows):
    scores = _apply(module, params, rows, block_mask=block)
    return jax.nn.logsumexp(scores), scores

  take = jax.jit(jax.value_and_grad(total, has_aux=True))
  (_, scores), grads = take(params, lines)
  (_, expected), expected_grads = take(params, plain)

  _equal(scores, expected)
  for got, want in zip(
    jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
  ):
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_places_count_from_each_rows_start(plain, lines):
  found = np.asarray(packed.places(lines["mask"], lines["starts"]))
  for i, length in enumerate(plain["mask"].sum(axis=1)):
    line, slot = divmod(int(lines["order"][i]), lines["starts"].shape[1])
    own = lines["mask"][line] == slot + 1
    assert found[line][own].tolist() == list(range(length))


def test_a_mean_is_of_the_rows_own_tokens(plain, lines):
  states = jax.random.normal(jax.random.key(1), (5, 16, 3))
  means = packed.mean_states(states, lines["mask"], lines["starts"])
  for line, slot in np.ndindex(5, int(lines["mask"].max())):
    own = lines["mask"][line] == slot + 1
    expected = states[line][own].mean(axis=0) if own.any() else np.zeros(3)
    _equal(means[line, slot], expected)


def test_a_row_without_tokens_has_a_mean_of_zero():
  states = jnp.ones((1, 3, 2))
  mask = jnp.array([[True, False, False], [False] * 3])
  means = packed.mean_states(jnp.tile(states, (2, 1, 1)), mask, None)
  np.testing.assert_array_equal(means[:, 0], [[1, 1], [0, 0]])


def test_a_line_of_padding_gives_finite_gradients(random_params):
  module = BertEncoder(BertConfig(**BERT))
  empty = jnp.zeros((1, 4), jnp.int32)
  starts = jnp.zeros((1, 2), jnp.int32)
  params = random_params(module, empty, empty, empty, starts)

  def total(params):
    states = module.apply(
      {"params": params}, empty, empty, empty, starts, deterministic=True
    )
    return states.sum()

  grads = jax.grad(total)(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
