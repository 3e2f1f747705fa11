# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.config import MeshConfig, RetrievalConfig
from realm_jax.index import device, store
from realm_jax.index.device import DeviceIndex, merge, search_shards
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import NO_PASSAGE
from tests.index.conftest import publish


def mesh_of(num_devices):
  fsdp = 2 if num_devices > 2 else 1
  config = MeshConfig(fsdp=fsdp)
  return sharding.make_mesh(config, jax.devices()[:num_devices])


def make_index(
  embeddings, num_devices=8, *, dtype="float32", approximate=False
):
  return DeviceIndex(embeddings, mesh_of(num_devices), dtype, approximate)


def normal(rng, *shape):
  return rng.normal(size=shape).astype(np.float32)


def integers(rng, *shape):
  # Small integers: every sum is exact, and ties are everywhere.
  return rng.integers(-3, 4, size=shape).astype(np.float32)


def assert_same(found, wanted, **tolerance):
  np.testing.assert_array_equal(found.ids, wanted.ids)
  np.testing.assert_allclose(found.scores, wanted.scores, **tolerance)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("block_rows", [7, 2**16])
def test_equals_exact_search_on_any_devices_and_blocks_ties_included(
  monkeypatch, num_devices, block_rows
):
  monkeypatch.setattr(device, "_BLOCK_ROWS", block_rows)
  rng = np.random.default_rng(0)
  for draw, rtol in ((normal, 1e-5), (integers, 0.0)):
    # 301 rows: they divide over no number of devices, nor into blocks.
    passages, queries = draw(rng, 301, 5), draw(rng, 9, 5)
    embeddings = Embeddings([passages[:90], passages[90:]])
    found = make_index(embeddings, num_devices).search(queries, 50)
    assert_same(found, ExactIndex(embeddings).search(queries, 50), rtol=rtol)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_approximate_search_finds_as_good_passages_on_a_cpu(
  monkeypatch, num_devices
):
  """On a TPU it would be 95% of them; among ties no order is promised."""
  monkeypatch.setattr(device, "_BLOCK_ROWS", 64)
  rng = np.random.default_rng(0)
  embeddings = Embeddings([integers(rng, 301, 5)])
  queries = integers(rng, 9, 5)
  index = make_index(embeddings, num_devices, approximate=True)
  found = index.search(queries, 50)
  exact = ExactIndex(embeddings).search(queries, 50)
  np.testing.assert_array_equal(found.scores, exact.scores)
  scores = np.einsum("bd,bkd->bk", queries, embeddings[found.ids])
  np.testing.assert_array_equal(found.scores, scores)
  assert all(len(set(row)) == 50 for row in found.ids.tolist())


@pytest.mark.parametrize("num_passages", [1, 2, 9])
def test_a_small_corpus_fills_the_rest_with_no_passage(num_passages):
  rng = np.random.default_rng(0)
  # Negative scores: padding, whose product is 0, would come first.
  passages = -1 - rng.random((num_passages, 3), np.float32)
  embeddings = Embeddings([passages])
  queries = np.ones((2, 3), np.float32)
  found = make_index(embeddings).search(queries, 12)
  assert_same(found, ExactIndex(embeddings).search(queries, 12), rtol=1e-6)
  assert (found.ids[:, num_passages:] == NO_PASSAGE).all()


def test_negative_zero_and_extreme_scores_sort_as_numbers():
  passages = np.array([[-0.0], [0.0], [-3e38], [1e-30], [3e38], [-1e-30]], "f4")
  found = make_index(Embeddings([passages]), 2).search(np.ones((1, 1), "f4"), 6)
  np.testing.assert_array_equal(found.ids, [[4, 3, 0, 1, 5, 2]])


@pytest.mark.parametrize("num_devices", [1, 8])
def test_bfloat16_is_exact_search_over_rounded_vectors(num_devices):
  rng = np.random.default_rng(0)
  passages, queries = normal(rng, 301, 8), normal(rng, 9, 8)
  found = make_index(
    Embeddings([passages]), num_devices, dtype="bfloat16"
  ).search(queries, 20)

  def rounded(vectors):
    return vectors.astype(jnp.bfloat16).astype(np.float32)

  exact = ExactIndex(Embeddings([rounded(passages)]))
  assert_same(found, exact.search(rounded(queries), 20), rtol=1e-5)


def test_any_number_of_queries_is_answered(monkeypatch):
  monkeypatch.setattr(device, "_BLOCK_QUERIES", 16)
  rng = np.random.default_rng(0)
  embeddings = Embeddings([integers(rng, 40, 4)])
  index, exact = make_index(embeddings), ExactIndex(embeddings)
  for num_queries in (0, 1, 8, 9, 16, 35):
    queries = integers(rng, num_queries, 4)
    found = index.search(queries, 3)
    assert found.ids.shape == found.scores.shape == (num_queries, 3)
    assert_same(found, exact.search(queries, 3))


def test_searching_again_compiles_nothing_for_an_index_of_about_the_size():
  rng = np.random.default_rng(0)
  make_index(Embeddings([normal(rng, 99, 4)])).search(normal(rng, 10, 4), 3)
  events = []

  def note(name, *_, **__):
    if "compile" in name:
      events.append(name)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    passages = Embeddings([normal(rng, 103, 4)])
    index = make_index(passages)
    index.search(normal(rng, 16, 4), 3)
    index.search(normal(rng, 11, 4), 3)
    assert events == []
    queries = normal(rng, 10, 4)
    exact = ExactIndex(passages).search(queries, 3)
    assert_same(index.search(queries, 3), exact, rtol=1e-5)
    index.search(normal(rng, 11, 4), 4)
    assert events
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


def test_the_search_runs_inside_a_jitted_function_of_the_same_mesh():
  rng = np.random.default_rng(0)
  passages, rows = integers(rng, 64, 4), integers(rng, 6, 3)
  weights = integers(rng, 3, 4)
  mesh = mesh_of(8)
  blocks = jax.device_put(
    passages.reshape(16, 4, 4), sharding.batch_sharding(mesh)
  )

  @jax.jit
  def embed_and_search(weights, rows):
    return merge(
      *search_shards(
        rows @ weights,
        blocks,
        k=5,
        num_passages=62,
        mesh=mesh,
        approximate=False,
      )
    )

  scores, ids = embed_and_search(weights, rows)
  exact = ExactIndex(Embeddings([passages[:62]])).search(rows @ weights, 5)
  np.testing.assert_array_equal(ids, exact.ids)
  np.testing.assert_array_equal(scores, exact.scores)


def test_a_search_needs_no_collective():
  """Threads of several hosts could not agree on the order of collectives."""
  mesh = mesh_of(8)
  blocks = jax.device_put(
    np.ones((8, 4, 2), "f4"), sharding.batch_sharding(mesh)
  )
  queries = jax.device_put(np.ones((3, 2), "f4"), sharding.replicated(mesh))
  search = functools.partial(
    search_shards, k=2, num_passages=32, mesh=mesh, approximate=False
  )
  program = jax.jit(search).lower(queries, blocks).compile().as_text()
  for collective in ("all-gather", "all-reduce", "all-to-all", "permute"):
    assert collective not in program
  whole = jax.jit(lambda *args: merge(*search(*args)))
  program = whole.lower(queries, blocks).compile().as_text()
  assert "all-gather" in program


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_host_never_holds_the_passages_in_memory(
  tmp_path, monkeypatch, dtype
):
  monkeypatch.setattr(device, "_BLOCK_ROWS", 2**9)
  path = tmp_path / "embeddings.npy"
  np.save(path, np.ones((2**15, 128), np.float32))
  num_bytes = path.stat().st_size  # 16 MiB
  embeddings = Embeddings([np.load(path, mmap_mode="r")])
  tracemalloc.start()
  try:
    make_index(embeddings, 2, dtype=dtype)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < num_bytes / 8


def test_bad_searches_are_refused():
  index = make_index(Embeddings([np.ones((3, 2), np.float32)]))
  with pytest.raises(ValueError, match="width 4, the index has D=2"):
    index.search(np.ones((1, 4), np.float32), 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_published_version_opens_on_the_devices_if_the_run_says_so(
  tmp_path, run, corpus, dtype
):
  version = publish(tmp_path, 20, corpus)
  on_device = dataclasses.replace(
    run, retrieval=RetrievalConfig(backend="device", device_dtype=dtype)
  )
  opened = store.open_version(tmp_path, version, on_device, corpus)
  exact = store.open_version(tmp_path, version, run, corpus)
  assert isinstance(opened.index, DeviceIndex)
  queries = opened.embeddings[np.arange(20)]
  found, wanted = (each.index.search(queries, 1) for each in (opened, exact))
  rounding = 1e-5 if dtype == "float32" else 2e-2
  assert_same(found, wanted, rtol=rounding)
