# SPDX-License-Identifier: Apache-2.0
"""Costs of small steps, compiled for CPU devices, against closed forms."""

import dataclasses
import math

import jax
import pytest

from realm_jax.config import EmbedderConfig, MeshConfig, RetrievalConfig
from realm_jax.plan import compiled, estimate
from realm_jax.plan.batches import full_rows
from tests.plan.conftest import BERT

# Of one layer of the encoder, biases and norms included.
H, V = BERT.hidden_size, BERT.vocab_size
LAYER = 12 * H**2 + 13 * H
TOKENS = 64 * 128  # Of a batch of full rows.


@pytest.fixture(scope="module")
def num_params(reading_run):
  leaves = jax.tree.leaves(estimate.abstract_params(reading_run))
  return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.fixture(scope="module")
def replicated(reading_run):
  return compiled.step_cost(reading_run, 8, 1, num_hosts=1)


@pytest.fixture(scope="module")
def sharded(reading_run):
  run = dataclasses.replace(reading_run, mesh=MeshConfig(fsdp=2))
  return compiled.step_cost(run, 4, 2, num_hosts=1)


@pytest.fixture(scope="module")
def layers_again(reading_run):
  run = dataclasses.replace(reading_run, remat="layers")
  return compiled.step_cost(run, 8, 1, num_hosts=1)


def test_replicated_each_device_holds_all_of_the_state(replicated, num_params):
  assert replicated.params == replicated.gradients == 4 * num_params
  assert replicated.moments == pytest.approx(2 * replicated.params, rel=1e-4)


def test_fsdp_divides_the_state(replicated, sharded):
  for field in ("params", "moments", "gradients"):
    ratio = getattr(replicated, field) / getattr(sharded, field)
    assert ratio == pytest.approx(2, rel=0.02)  # Small leaves stay whole.
  assert sharded.flops == pytest.approx(replicated.flops, rel=0.05)


def test_what_fsdp_moves_does_not_grow_with_the_batch(reading_run):
  # A vocabulary that fsdp does not divide: tables are split by their width.
  bert = dataclasses.replace(BERT, num_layers=1, vocab_size=2050)
  run = dataclasses.replace(
    reading_run,
    stage="realm",
    encoder=bert,
    embedder=EmbedderConfig(bert=bert, dim=16),
    retrieval=RetrievalConfig(num_candidates=2),
    mesh=MeshConfig(fsdp=4),
  )

  def moved(batch_size):
    sized = dataclasses.replace(run, batch_size=batch_size)
    return sum(compiled.step_cost(sized, 4, 4, num_hosts=1).moved.values())

  # Parameters and their gradients, and the few states that are masked.
  assert moved(32) == pytest.approx(moved(16), rel=0.05)


def test_data_parallel_reduces_every_gradient_once(replicated, num_params):
  # Token embeddings have two: as they are looked up, and as the decoder.
  expected = 4 * (num_params + V * H)
  assert replicated.moved["all-reduce", "both"] == pytest.approx(
    expected, rel=0.02
  )


def test_flop_are_six_a_parameter_and_token(replicated):
  weights = BERT.num_layers * LAYER * TOKENS / 8
  attention = BERT.num_layers * 2 * H * 128 * TOKENS / 8
  assert replicated.flops == pytest.approx(6 * (weights + attention), rel=0.2)


def test_layers_again_are_in_memory_one_at_a_time(replicated, layers_again):
  # Of 4 layers; for that, their forward pass is done twice.
  assert layers_again.activations < 0.4 * replicated.activations
  assert layers_again.params == replicated.params
  forward = BERT.num_layers * 2 * (LAYER + 2 * H * 128) * TOKENS / 8
  again = layers_again.flops - replicated.flops
  assert again == pytest.approx(forward, rel=0.1)


def test_products_kept_are_not_computed_again(
  reading_run, replicated, layers_again
):
  run = dataclasses.replace(reading_run, remat="dots")
  cost = compiled.step_cost(run, 8, 1, num_hosts=1)
  memory = (layers_again.activations, cost.activations, replicated.activations)
  assert memory == tuple(sorted(memory))
  assert cost.activations < 0.7 * replicated.activations
  attention = BERT.num_layers * 2 * 2 * H * 128 * TOKENS / 8
  assert cost.flops == pytest.approx(replicated.flops + attention, rel=0.01)


@pytest.mark.parametrize("remat", ["none", "layers"])
def test_layers_left_out_are_added_as_if_compiled(
  reading_run, replicated, layers_again, remat, monkeypatch
):
  run = dataclasses.replace(reading_run, remat=remat)
  cut = {"none": replicated, "layers": layers_again}[remat]
  monkeypatch.setattr(
    compiled, "extended", lambda layers, measure: measure(layers)
  )
  whole = compiled.step_cost(run, 8, 1, num_hosts=1)
  assert whole.flops == pytest.approx(cut.flops, rel=1e-6)
  assert whole.moved == pytest.approx(cut.moved)
  assert whole.memory == pytest.approx(cut.memory, rel=0.03)


def test_what_is_gathered_from_all_devices_grows_with_them(
  reading_run, monkeypatch
):
  found = {
    **{"temporary": 1e9, "flops": 1.0, "product_bytes": 1.0, "gathered": 3e6},
    ("all-gather", "both"): 5e6,
    ("all-gather", "fsdp"): 7e6,
    ("all-reduce", "both"): 9e6,
  }
  monkeypatch.setattr(compiled, "extended", lambda *_: found)
  run = dataclasses.replace(reading_run, mesh=MeshConfig(fsdp=2))
  cost = compiled.step_cost(run, 8, 2, num_hosts=1)  # 4 of 16 are compiled.
  assert cost.moved == {
    ("all-gather", "both"): 20e6,
    ("all-gather", "fsdp"): 7e6,
    ("all-reduce", "both"): 9e6,
  }
  assert cost.activations + cost.gradients == 1e9 + 3 * 3e6


def test_figures_grow_by_the_layer():
  measured = []

  def measure(layers):
    measured.append(dict(layers))
    a, b = layers["a"], layers["b"]
    return {
      "temporary": 100.0 + 10 * a + 20 * b,
      "update": 1.0,
      "flops": 2.0 * a,
    }

  found = compiled.extended({"a": 12, "b": 24}, measure)
  assert found["temporary"] == 100 + 120 + 480
  assert found["flops"] == 24
  assert all(max(each.values()) <= 3 for each in measured)


def test_more_layers_are_measured_where_the_update_hides_them():
  def measure(layers):
    update = 50.0 + layers["a"]
    return {"temporary": max(update, 20.0 * layers["a"]), "update": update}

  assert compiled.extended({"a": 12}, measure)["temporary"] == 240
  assert compiled.extended({"a": 2}, measure)["temporary"] == 52


def test_stacks_of_one_depth_grow_together():
  calls = []

  def measure(layers):
    calls.append(dict(layers))
    return {"temporary": 10.0 * sum(layers.values()), "update": 0.0}

  assert compiled.extended({"a": 5, "b": 5}, measure)["temporary"] == 100
  assert calls == [{"a": 2, "b": 2}, {"a": 3, "b": 3}]


def test_bfloat16_keeps_less_for_the_backward_pass(reading_run):
  params = estimate.abstract_params(reading_run)
  batch = full_rows(reading_run)
  encoder = dataclasses.replace(reading_run.encoder, dtype="bfloat16")
  narrow = dataclasses.replace(reading_run, encoder=encoder)
  assert compiled._narrowing(reading_run, params, batch) == 1
  assert 0.5 < compiled._narrowing(narrow, params, batch) < 0.95
