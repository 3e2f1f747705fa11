# SPDX-License-Identifier: Apache-2.0
"""Updates of every stage on made-up batches: devices, resharding, shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.checkpoints import CheckpointWriter, RunPosition
from realm_jax.config import (
  BertConfig,
  EmbedderConfig,
  LengthConfig,
  MeshConfig,
  OpenQaConfig,
  OptimizerConfig,
  RetrievalConfig,
  RunConfig,
)
from realm_jax.data import packing
from realm_jax.models.embedder import Embedder
from realm_jax.train.program import Program

B, K, Q, P, T, M, V, D = 8, 3, 6, 10, 16, 2, 50, 8
C, R, W = 5, 2, 3
BERT = BertConfig(
  vocab_size=V,
  hidden_size=16,
  num_layers=1,
  num_heads=2,
  mlp_size=32,
  max_positions=T,
)


def tiny_run(stage, **changes):
  run = RunConfig(
    stage=stage,
    num_steps=20,
    batch_size=B,
    lengths=LengthConfig(query=Q, passage=P, joint=T, masks=M),
    embedder=EmbedderConfig(bert=BERT, dim=D),
    encoder=BERT,
    retrieval=RetrievalConfig(num_candidates=K),
    openqa=OpenQaConfig(beam=C, read=R, max_span=W, span_width=8),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=1),
  )
  return dataclasses.replace(run, **changes)


def rows(rng, n, length):
  lengths = rng.integers(3, length + 1, n)
  mask = np.arange(length)[None] < lengths[:, None]
  ids = np.where(mask, rng.integers(5, V, (n, length)), 0)
  return {
    "ids": ids.astype(np.int32),
    "segments": (np.arange(length)[None] > 3).astype(np.int32) * mask,
    "mask": mask,
  }


def packed(rng, n, length, parts):
  shapes = packing.Packing(2 * length, (n // parts,), parts)
  return shapes.pack(rows(rng, n, length), 0)


def masks(rng):
  return {
    "positions": rng.integers(1, 3, (B, M)).astype(np.int32),
    "targets": rng.integers(5, V, (B, M)).astype(np.int32),
    "target_mask": np.array([[True, i % 2 == 0] for i in range(B)]),
  }


def batch_of(stage, seed=0, parts=1):
  rng = np.random.default_rng(seed)
  if stage == "ict":
    return {"query": rows(rng, B, Q), "passage": rows(rng, B, P)}
  if stage == "dpr":
    return {
      "query": rows(rng, B, Q),
      "passage": packed(rng, 2 * B, P, parts),
      "passage_row": np.arange(2 * B) // 3,
    }
  if stage == "mlm":
    return {"joint": rows(rng, B, T), **masks(rng)}
  if stage == "realm":
    keep = np.ones((B, K), bool)
    keep[0, 2] = False
    return {
      "query": rows(rng, B, Q),
      "passages": packed(rng, B * K, P, parts),
      "joints": packed(rng, B * K, T, parts),
      "candidate_mask": keep,
      "own_words": np.zeros_like(keep),
      **masks(rng),
    }
  gold = np.zeros((B, R, T, W), bool)
  gold[: B - 1, 0, 5, 1] = True
  return {
    "query": rows(rng, B, Q),
    "beam_embs": rng.normal(size=(B, C, D)).astype(np.float32),
    "passages": packed(rng, B * R, P, parts),  # Where documents are trained.
    "beam_mask": np.ones((B, C), bool),
    "beam_has_answer": rng.random((B, C)) < 0.4,
    "joint": rows(rng, B * R, T),
    "block_mask": np.tile(np.arange(T) > 3, (B * R, 1)),
    "gold_spans": gold,
  }


def mesh_of(data, fsdp):
  devices = jax.devices()[: data * fsdp]
  return sharding.make_mesh(MeshConfig(data=data, fsdp=fsdp), devices)


def train(run, mesh, steps=3):
  program = Program(run, mesh)
  program.compile([batch_of(run.stage)])
  state = program.first_state()
  losses = []
  for step in range(steps):
    state, sums = program.update(state, batch_of(run.stage, seed=step))
    total, count = jax.device_get(sums["loss"])
    losses.append(total / count)
  return jax.device_get(state.params), losses


STAGES = ("ict", "dpr", "mlm", "realm", "openqa")


@pytest.mark.parametrize("stage", STAGES)
def test_results_do_not_depend_on_the_number_of_devices(stage, monkeypatch):
  monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 1)
  run = tiny_run(stage)
  single, losses = train(run, mesh_of(1, 1))
  for shape in ((8, 1), (2, 4)) if stage == "realm" else ((2, 4),):
    params, other_losses = train(run, mesh_of(*shape))
    np.testing.assert_allclose(other_losses, losses, rtol=1e-4)
    # One update is at most about three learning rates; rounding of a tiny
    # gradient can turn its sign.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), params, single
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_learns_its_batch_by_heart(stage):
  still = dataclasses.replace(BERT, dropout=0.0, attention_dropout=0.0)
  run = tiny_run(
    stage,
    num_steps=200,
    encoder=still,
    embedder=EmbedderConfig(bert=still, dim=D),
  )
  program = Program(run, mesh_of(1, 1))
  batch = batch_of(stage)
  program.compile([batch])
  state = program.first_state()
  losses = []
  for _ in range(60):
    state, sums = program.update(state, batch)
    total, count = jax.device_get(sums["loss"])
    losses.append(total / count)
  assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("stage", ["mlm", "realm", "openqa"])
def test_a_batch_in_parts_is_the_same_batch(stage):
  still = dataclasses.replace(BERT, dropout=0.0, attention_dropout=0.0)
  run = tiny_run(
    stage, encoder=still, embedder=EmbedderConfig(bert=still, dim=D)
  )
  expected = sums_of(run, mesh_of(1, 1), batch_of(stage))
  optimizer = dataclasses.replace(run.optimizer, accumulate_steps=2)
  run = dataclasses.replace(run, optimizer=optimizer)
  # Rows that count are unequal in number: masks of mlm, questions of openqa.
  found = sums_of(run, mesh_of(2, 2), batch_of(stage, parts=2))
  assert expected.keys() == found.keys()
  for name, pair in expected.items():
    np.testing.assert_allclose(found[name], pair, rtol=1e-4, err_msg=name)


def sums_of(run, mesh, batch):
  """The first update's sums, the norm of its gradient among them."""
  program = Program(run, mesh)
  program.compile([batch])
  return jax.device_get(program.update(program.first_state(), batch)[1])


def test_a_checkpoint_goes_on_with_more_computed_again(tmp_path, monkeypatch):
  first, then = "none", "layers"
  monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 1)
  batch, found = batch_of("realm", parts=4), {}
  with CheckpointWriter(tmp_path, keep=1) as writer:
    for remat in (first, then):
      program = Program(tiny_run("realm", remat=remat), mesh_of(2, 2))
      program.compile([batch])
      if remat == first:
        state, _ = program.update(program.first_state(), batch)
        writer.save(1, state, RunPosition(data_state={}))
        writer.wait()
      restored = writer.restore_newest(program.abstract_state)
      state, sums = program.update(restored[0], batch)
      found[remat] = jax.device_get((state.params, sums))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3),
    found[then],
    found[first],
  )


@pytest.mark.parametrize("marginal", ["per_mask", "joint"])
def test_both_marginals_train_and_differ(marginal):
  run = tiny_run(
    "realm", retrieval=RetrievalConfig(num_candidates=K, marginal=marginal)
  )
  other = "joint" if marginal == "per_mask" else "per_mask"
  twin = tiny_run(
    "realm", retrieval=RetrievalConfig(num_candidates=K, marginal=other)
  )
  assert train(run, mesh_of(1, 1))[1] != train(twin, mesh_of(1, 1))[1]


def test_without_the_null_document_its_slot_has_no_mass():
  run = tiny_run(
    "realm",
    retrieval=RetrievalConfig(num_candidates=K, null_document=False),
  )
  program = Program(run, mesh_of(1, 1))
  program.compile([batch_of("realm")])
  _, sums = program.update(program.first_state(), batch_of("realm"))
  assert jax.device_get(sums["retrieval/null_mass"])[0] == 0.0


def test_fine_tuning_leaves_the_document_tower_as_it_was():
  run = tiny_run("openqa")
  program = Program(run, mesh_of(1, 1))
  before = jax.device_get(program.first_state().params["retriever"])
  after, _ = train(run, mesh_of(1, 1))
  jax.tree.map(
    np.testing.assert_array_equal,
    after["retriever"]["document"],
    before["document"],
  )
  moved = jax.tree.map(
    lambda a, b: not np.array_equal(a, b),
    after["retriever"]["query"],
    before["query"],
  )
  assert any(jax.tree.leaves(moved))


def still_run():
  still = dataclasses.replace(BERT, dropout=0.0, attention_dropout=0.0)
  run = tiny_run(
    "openqa", encoder=still, embedder=EmbedderConfig(bert=still, dim=D)
  )
  trained = dataclasses.replace(run.openqa, train_documents=True)
  return dataclasses.replace(run, openqa=trained)


def test_trained_documents_are_scored_anew_where_they_are_read():
  run, batch = still_run(), batch_of("openqa")
  mesh = mesh_of(1, 1)
  sums = sums_of(run, mesh, batch)

  params = Program(run, mesh).first_state().params["retriever"]

  def embed(side, rows):
    rows = jax.tree.map(jnp.asarray, rows)
    embs = Embedder(run.embedder).apply(
      {"params": params[side]}, **rows, deterministic=True
    )
    return np.asarray(embs)

  queries = embed("query", batch["query"])
  embs = batch["beam_embs"].copy()
  embs[:, :R] = embed("document", batch["passages"]).reshape(B, R, D)
  exps = np.exp(np.einsum("bd,bcd->bc", queries, embs))
  right = np.where(batch["beam_has_answer"], exps, 0.0).sum(axis=1)
  found = right > 0
  losses = -np.log(right[found] / exps.sum(axis=1)[found])
  total, count = sums["retriever_loss"]
  assert count == found.sum()
  np.testing.assert_allclose(total, losses.sum(), rtol=1e-4)

  # What the index says of the read passages has no part in it.
  other = {**batch, "beam_embs": batch["beam_embs"].copy()}
  other["beam_embs"][:, :R] = 7.0
  np.testing.assert_equal(sums_of(run, mesh, other), sums)


def test_both_towers_learn_where_documents_are_trained():
  run = still_run()
  before = Program(run, mesh_of(1, 1)).first_state().params["retriever"]
  after, _ = train(run, mesh_of(1, 1))
  for side in ("query", "document"):
    moved = jax.tree.map(
      lambda a, b: not np.array_equal(a, b),
      after["retriever"][side],
      jax.device_get(before[side]),
    )
    assert all(jax.tree.leaves(moved))


def test_a_shape_that_was_not_compiled_is_an_error_not_a_recompile():
  run = tiny_run("ict")
  program = Program(run, mesh_of(1, 1))
  with pytest.raises(KeyError):
    program.update(program.first_state(), batch_of("ict"))


def test_a_part_that_does_not_divide_over_the_devices_is_refused():
  run = tiny_run("mlm", optimizer=OptimizerConfig(accumulate_steps=2))
  with pytest.raises(ValueError, match=r"accumulate_steps is 4.*8 devices"):
    Program(run, mesh_of(8, 1))


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
  with pytest.raises(ValueError, match=r"batch_size is 6.*8 devices"):
    Program(tiny_run("ict", batch_size=6), mesh_of(8, 1))


def test_the_reader_s_loss_is_the_same_whoever_found_its_passages():
  still = dataclasses.replace(BERT, dropout=0.0, attention_dropout=0.0)
  dense = tiny_run(
    "openqa", encoder=still, embedder=EmbedderConfig(bert=still, dim=D)
  )
  bm25 = dataclasses.replace(
    dense, openqa=dataclasses.replace(dense.openqa, retriever="bm25")
  )
  batch = batch_of("openqa")
  # Passages all alike to the dense retriever, as zeros are.
  batch["beam_embs"] = np.zeros_like(batch["beam_embs"])
  scored = {**batch, "beam_scores": np.zeros((B, R), np.float32)}
  expected = sums_of(dense, mesh_of(1, 1), batch)
  found = sums_of(bm25, mesh_of(1, 1), scored)
  np.testing.assert_allclose(
    found["reader_loss"], expected["reader_loss"], rtol=1e-5
  )
  assert list(Program(bm25, mesh_of(1, 1)).abstract_state.params) == ["reader"]

  scored["beam_scores"] = scored["beam_scores"] + np.array(
    [[9.0, 0.0]] * B, "f4"
  )
  # Where the answer stands in the first passage, a higher score is worth it.
  easier = sums_of(bm25, mesh_of(1, 1), scored)
  assert easier["reader_loss"][0] < found["reader_loss"][0]
