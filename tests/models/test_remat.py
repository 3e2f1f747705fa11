# SPDX-License-Identifier: Apache-2.0
"""What is computed again is what would have been kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.models.bert import REMAT_POLICIES, BertEncoder
from realm_jax.models.embedder import Embedder
from realm_jax.models.reader import KnowledgeAugmentedEncoder, SpanReader
from tests.models.test_bert import TINY, VARIANTS, make_rows

CONFIG = BertConfig(**TINY)


def encoder(remat, **changes):
  return BertEncoder(BertConfig(**{**TINY, **changes}), remat)


def loss_of(module):
  weights = np.random.default_rng(1).normal(size=TINY["hidden_size"])

  def loss(params):
    states = module.apply(
      {"params": params},
      *make_rows(),
      deterministic=False,
      rngs={"dropout": jax.random.key(5)},
    )
    return jnp.sum(jnp.tanh(states @ jnp.float32(weights)) ** 2)

  return loss


@pytest.mark.parametrize("variant", ["bert", "copying"])
@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_loss_and_gradient_are_the_same_with_dropout(
  remat, variant, random_params
):
  kept, again = (encoder(name, **VARIANTS[variant]) for name in ("none", remat))
  params = random_params(kept, *make_rows())
  expected, found = (
    jax.jit(jax.value_and_grad(loss_of(module)))(params)
    for module in (kept, again)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
    found,
    expected,
  )


@pytest.mark.parametrize("remat", REMAT_POLICIES)
@pytest.mark.parametrize(
  ("make", "rows"),
  [
    (lambda remat: Embedder(EmbedderConfig(bert=CONFIG, dim=4), remat), {}),
    (
      lambda remat: KnowledgeAugmentedEncoder(CONFIG, remat),
      {"positions": jnp.zeros((3, 2), jnp.int32)},
    ),
    (
      lambda remat: SpanReader(CONFIG, remat=remat),
      {"block_mask": make_rows()[2]},
    ),
  ],
  ids=["embedder", "encoder", "reader"],
)
def test_parameters_have_the_same_names_and_shapes(make, rows, remat):
  def shapes(remat):
    return jax.eval_shape(
      lambda: make(remat).init(
        jax.random.key(0), *make_rows(), **rows, deterministic=True
      )
    )

  assert shapes(remat) == shapes("none")


@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_without_a_gradient_nothing_is_computed_twice(remat, random_params):
  params = random_params(encoder("none"), *make_rows())

  def flop(name, differentiate):
    of = loss_of(encoder(name))
    of = jax.grad(of) if differentiate else of
    return jax.jit(of).lower(params).compile().cost_analysis()["flops"]

  assert flop(remat, False) == flop("none", False)
  assert flop(remat, True) > flop("none", True)
