# SPDX-License-Identifier: Apache-2.0
"""Counts of compiled programs against closed forms and XLA's own."""

import jax
import jax.numpy as jnp
import pytest

from realm_jax import sharding
from realm_jax.config import MeshConfig
from realm_jax.plan import hlo

N, LOOPS = 64, 7


def compiled_for(function, *places):
  shapes = [
    jax.ShapeDtypeStruct((N, N), jnp.float32, sharding=place)
    for place in places
  ]
  return jax.jit(function).lower(*shapes).compile()


def mesh_of(data, fsdp):
  return sharding.make_mesh(
    MeshConfig(data=data, fsdp=fsdp), jax.devices()[: data * fsdp]
  )


@pytest.fixture(scope="module")
def whole():
  return sharding.replicated(mesh_of(1, 1))


def test_a_product_is_counted_as_xla_counts_it(whole):
  compiled = compiled_for(lambda a, b: a @ b, whole, whole)
  counts = hlo.count(compiled.as_text())
  assert counts.flops == compiled.cost_analysis()["flops"] == 2 * N**3
  assert counts.product_bytes == 3 * 4 * N**2
  assert counts.collectives == ()


def test_a_loop_s_body_is_counted_as_often_as_it_runs(whole):
  def products(a, b):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ b), None), a, length=LOOPS)

  compiled = compiled_for(products, whole, whole)
  counts = hlo.count(compiled.as_text())
  assert counts.flops == LOOPS * 2 * N**3
  # XLA's own analysis is of one round.
  assert compiled.cost_analysis()["flops"] < 2 * counts.flops / LOOPS


@pytest.mark.parametrize(
  ("data", "fsdp", "members", "stride"), [(2, 1, 2, 1), (2, 2, 4, 1)]
)
def test_the_sum_over_a_split_batch_is_an_all_reduce(
  data, fsdp, members, stride
):
  rows = sharding.batch_sharding(mesh_of(data, fsdp))
  gradient = jax.grad(lambda w, x: (x @ w).sum())
  compiled = compiled_for(gradient, sharding.replicated(rows.mesh), rows)
  (each,) = hlo.count(compiled.as_text()).collectives
  assert (each.op, each.members, each.stride) == ("all-reduce", members, stride)
  assert each.num_bytes in (4 * N, 4 * N**2)  # XLA may broadcast afterwards.


@pytest.mark.parametrize(
  ("written", "group"),
  [
    ("replica_groups={{0,2},{1,3}}, x", [0, 2]),
    ("replica_groups=[2,2]<=[4], x", [0, 1]),
    ("replica_groups=[2,2]<=[2,2]T(1,0), x", [0, 2]),
    ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", [0, 1]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [0, 2]),
    ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}, x", list(range(8))),
    ("replica_groups=mesh['a'=8] {'a':(2)2}, x", [0, 2]),
    (
      "replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}",
      [0, 1],
    ),
    ("source_target_pairs={{1,0},{3,2}}, x", [1, 0]),
  ],
)
def test_all_ways_to_write_groups_are_read(written, group):
  assert hlo._first_group(written) == group
