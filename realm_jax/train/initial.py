# SPDX-License-Identifier: Apache-2.0
"""Where a stage's parameters start: at random, from BERT, or a workdir."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.models.embedder import Embedder
from realm_jax.models.import_bert import load_bert
from realm_jax.models.reader import KnowledgeAugmentedEncoder, span_reader
from realm_jax.shapes import Params


def stage_params(run: RunConfig, rng: jax.Array) -> dict[str, Params]:
  """Returns the parameters that a stage trains (and those it keeps frozen).

  Raises:
    ValueError, FileNotFoundError: a source in `run.init` does not fit.
  """
  retriever_rng, encoder_rng = jax.random.split(rng)
  params: dict[str, Params] = {}
  if run.has_retriever:
    params["retriever"] = retriever_params(run, retriever_rng)
  if run.stage in ("mlm", "realm") or run.is_closed_book:
    params["encoder"] = encoder_params(run, encoder_rng)
  elif run.stage == "openqa":
    params["reader"] = reader_params(run, encoder_rng)
  return params


def retriever_params(run: RunConfig, rng: jax.Array) -> dict[str, Params]:
  """Returns {"shared": tower} or {"query": tower, "document": tower}.

  Raises:
    ValueError: `init.retriever` holds another architecture.
  """
  fresh = random_tower(run, rng)
  source = run.init.retriever
  if not source:
    towers: dict[str, Params] = {"shared": fresh}
  elif (workdir := workdirs.named_by(source)) is not None:
    path, step = workdir
    towers = checkpoints.restore_params(path, step, "retriever")
    for tower in towers.values():
      checkpoints.check_same_architecture(tower, fresh, source)
  else:
    imported = load_bert(source, run.embedder.bert)
    tower = _with_bert(fresh, imported["bert"], source)
    if run.embedder.pooling == "pooler" and "pooler" in imported:
      tower["head"] = {**fresh["head"], "pooler": imported["pooler"]}
    checkpoints.check_same_architecture(tower, fresh, source)
    towers = {"shared": tower}
  if run.embedder.shared and run.stage != "openqa":
    return _one_tower(towers, source)
  return two_towers(towers)


def encoder_params(run: RunConfig, rng: jax.Array) -> Params:
  """Returns the knowledge-augmented encoder: {"bert", "mlm_head"}."""
  rows = _dummy_rows(run.lengths.joint)
  positions = jnp.zeros((1, run.lengths.masks), jnp.int32)
  fresh = _random(
    KnowledgeAugmentedEncoder(run.encoder), rng, **rows, positions=positions
  )
  source = run.init.encoder
  if not source:
    return fresh
  if (workdir := workdirs.named_by(source)) is not None:
    restored = checkpoints.restore_params(*workdir, "encoder")
    checkpoints.check_same_architecture(restored, fresh, source)
    return restored
  imported = load_bert(source, run.encoder)
  params = _with_bert(fresh, imported["bert"], source)
  if "mlm_head" in imported:
    params = {**params, "mlm_head": imported["mlm_head"]}
  checkpoints.check_same_architecture(params, fresh, source)
  return params


def reader_params(run: RunConfig, rng: jax.Array) -> Params:
  """Returns the span reader: {"bert", "span_head"}.

  Both come from another reader, and the BERT alone from an encoder.
  """
  rows = _dummy_rows(run.lengths.joint)
  reader = span_reader(run)
  fresh = _random(reader, rng, **rows, block_mask=rows["mask"])
  if not run.init.encoder:
    return fresh
  source = run.init.encoder
  if (workdir := workdirs.named_by(source)) is None:
    return _with_bert(fresh, load_bert(source, run.encoder)["bert"], source)
  if workdirs.load(workdir[0]).stage == "openqa":
    restored = checkpoints.restore_params(*workdir, "reader")
    checkpoints.check_same_architecture(restored, fresh, source)
    return restored
  bert = checkpoints.restore_params(*workdir, "encoder")["bert"]
  return _with_bert(fresh, bert, source)


def random_tower(run: RunConfig, rng: jax.Array) -> Params:
  """Returns an embedder's parameters before any training."""
  rows = _dummy_rows(run.lengths.query)
  return _random(Embedder(run.embedder), rng, **rows)


def two_towers(towers: dict[str, Params]) -> dict[str, Params]:
  """Returns separate query and document towers, equal where one is shared."""
  if "shared" not in towers:
    return towers
  copy = jax.tree.map(jnp.array, towers["shared"])
  return {"query": towers["shared"], "document": copy}


def _one_tower(towers: dict[str, Params], source: str) -> dict[str, Params]:
  if "shared" in towers:
    return towers
  raise ValueError(
    f"{source} has separate query and document towers, but embedder.shared "
    "asks for one. Set embedder.shared=False."
  )


def _with_bert(fresh: Params, bert: Params, source: str) -> dict[str, Params]:
  params = {**fresh, "bert": bert}
  checkpoints.check_same_architecture(params, fresh, source)
  return params


def _random(module: nn.Module, rng: jax.Array, **inputs: jax.Array) -> Params:
  # One program: op by op, the same takes ten times as long.
  init = jax.jit(functools.partial(module.init, deterministic=True))
  return init(rng, **inputs)["params"]


def _dummy_rows(length: int) -> dict[str, jax.Array]:
  return {
    "ids": jnp.zeros((1, length), jnp.int32),
    "segments": jnp.zeros((1, length), jnp.int32),
    "mask": jnp.ones((1, length), bool),
  }
