# SPDX-License-Identifier: Apache-2.0
"""Our models against Hugging Face's; each known trap has a test of its own.

A test of a trap shows that the recorded numbers tell the right choice from
the wrong one: without that, parity would not prove that the choice is right.
"""

import dataclasses
import functools

from flax import linen as nn
import jax
import numpy as np
import pytest

from realm_jax.config import EmbedderConfig
from realm_jax.models import bert, embedder, reader
from tests.models import parity
from tests.models.parity import Golden

pytestmark = pytest.mark.parity
TOLERANCE = 1e-5
APART = 1e-4  # What a wrong choice makes, at the least.


class ScalingDropout(nn.Module):
  """What tools/golden makes of dropout: every place shows, and how often."""

  rate: float

  def __call__(self, values, *, deterministic):
    return values if deterministic else values * (1 + self.rate)


@functools.cache
def as_recorded(name):
  """A case, our model of it, and what the model gives."""
  case = Golden.load(name)
  model = parity.MODELS[name](case, case.bert())
  return case, model, parity.run(case, model)


def distance(name, **fields):
  """Of the outputs, with the config's fields changed."""
  case = Golden.load(name)
  model = parity.MODELS[name](case, case.bert(**fields))
  return parity.output_distance(parity.outputs(case, model), case)


@pytest.mark.parametrize("name", parity.MODELS)
def test_outputs_and_gradients_equal_hugging_face(name):
  case, model, found = as_recorded(name)

  assert parity.output_distance(found.outputs, case) <= TOLERANCE
  assert parity.gradient_distance(found, case, model) <= TOLERANCE


@pytest.mark.parametrize("name", ["bert_model", "realm_encoder"])
def test_bert_s_norms_have_epsilon_1e_12(name):
  assert distance(name, norm_eps=1e-3) > APART


def test_the_projection_s_norm_has_epsilon_1e_12():
  """In Hugging Face's port; the TensorFlow original has 1e-3."""
  case = Golden.load("realm_embedder")
  assert EmbedderConfig().head_norm_eps == 1e-12
  model = parity.realm_embedder(case, case.bert(), head_norm_eps=1e-3)

  assert parity.output_distance(parity.outputs(case, model), case) > APART


def test_the_reader_s_norm_has_epsilon_1e_3(monkeypatch):
  assert reader.SPAN_NORM_EPS == 1e-3
  monkeypatch.setattr(reader, "SPAN_NORM_EPS", 1e-12)

  assert distance("realm_reader") > APART


@pytest.mark.parametrize(
  ("name", "wrong"),
  [("bert_masked_lm", "gelu_tanh"), ("realm_encoder", "gelu")],
)
def test_bert_s_gelu_is_exact_and_realm_s_approximate(name, wrong):
  assert distance(name, activation=wrong) > APART


@pytest.mark.parametrize(
  "name", ["bert_model", "realm_embedder", "realm_encoder", "realm_reader"]
)
def test_dropout_is_where_hugging_face_has_it(name, monkeypatch):
  """Of the encoder and all heads, but for the projection: see below."""
  monkeypatch.setattr(bert, "Dropout", ScalingDropout)
  # Where it drops nothing, as there.
  monkeypatch.setattr(embedder, "Dropout", lambda _: ScalingDropout(0.0))
  case = Golden.load(name)
  model = parity.MODELS[name](case, case.bert())

  outputs = parity.outputs(case, model, exact=False)

  assert parity.output_distance(outputs, case, parity.SCALED) <= TOLERANCE
  # Were there no dropout, it would show.
  exact = {name: case.recorded[name] for name in outputs}
  assert parity.output_distance(exact, case, parity.SCALED) > APART


def test_vectors_are_dropped_from_as_in_the_original(monkeypatch):
  """In TensorFlow the projection ends with dropout; the port left it out."""
  monkeypatch.setattr(bert, "Dropout", ScalingDropout)
  monkeypatch.setattr(embedder, "Dropout", ScalingDropout)
  case = Golden.load("realm_embedder")
  model = parity.realm_embedder(case, case.bert())

  vectors = parity.outputs(case, model, exact=False)["vectors"]

  np.testing.assert_allclose(
    vectors, 1.1 * case.recorded["scaled.vectors"], atol=TOLERANCE
  )


def test_a_tied_tower_is_one_and_learns_from_both_sides():
  case, model, _ = as_recorded("realm_scorer")
  params = model.params(case.weights)
  assert set(params) == {"shared"}
  assert "query_embedder.cls.dense.bias" in case.weights  # Both are written.

  head = params["shared"]["head"]

  def loss(query, document):
    towers = {
      side: params["shared"]
      | {"head": head | {"projection": head["projection"] | {"bias": bias}}}
      for side, bias in (("query", query), ("document", document))
    }
    return model.run(towers, {}, True)["loss"]

  bias = head["projection"]["bias"]
  query, document = jax.jit(jax.grad(loss, (0, 1)))(bias, bias)

  name = "0/shared/head/projection/bias"
  recorded = parity.expected_gradients(case, model)[name]
  np.testing.assert_allclose(query + document, recorded, atol=TOLERANCE)
  assert np.abs(document - recorded).max() > APART


def test_untied_towers_are_told_apart():
  case, model, _ = as_recorded("realm_scorer_untied")

  assert set(model.params(case.weights)) == {"query", "document"}


def test_token_1_is_no_padding():
  """Hugging Face's REALM has pad_token_id=1, where the vocabulary has 0.

  It is not to be believed: what is padding is said by the mask. All that it
  does there is to keep token 1 from learning by its own embedding.
  """
  case, model, found = as_recorded("realm_embedder")
  assert (case.recorded["input_ids"][case.real] == 1).any()
  name = f"0/bert/{parity.TOKEN_TABLE}"

  ours = found.gradients[name]

  theirs = parity.expected_gradients(case, model)[name]
  assert not theirs[1].any()
  assert np.abs(ours[1]).max() > APART
  assert not ours[0].any()  # The padding.


def test_what_stands_at_padded_places_does_not_matter():
  case, _, found = as_recorded("realm_embedder")
  junk = np.where(case.real, case.recorded["input_ids"], 1)
  other = dataclasses.replace(
    case, recorded=case.recorded | {"input_ids": junk}
  )
  model = parity.realm_embedder(other, case.bert())

  np.testing.assert_allclose(
    parity.outputs(other, model)["vectors"], found.outputs["vectors"], atol=1e-6
  )
