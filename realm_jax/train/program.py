# SPDX-License-Identifier: Apache-2.0
"""A run's update, compiled once for every shape of batch that will come."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from realm_jax import sharding
from realm_jax.config import InitConfig, RunConfig
from realm_jax.shapes import Batch, Params
from realm_jax.train import initial
from realm_jax.train.losses import LOSSES
from realm_jax.train.optimizer import make_optimizer, part_of
from realm_jax.train.step import (
  LossFn,
  TrainState,
  init_state,
  make_train_step,
)

# Programs compiled at once. XLA for a CPU takes a gigabyte for one, and uses
# several cores by itself.
_COMPILING = 4
_COMPILING_FOR_CPU = 1
# XLA for a CPU would take away the barriers that hold back what is to be
# computed again, compute it at once, and keep all of it.
_KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


class Program:
  """The jitted update of a run, and the layout of its state."""

  def __init__(self, run: RunConfig, mesh: Mesh) -> None:
    """Compiles nothing yet.

    Raises:
      ValueError: the batch does not divide over the mesh's devices.
    """
    self.mesh = mesh
    self._on_cpu = mesh.devices.flat[0].platform == "cpu"
    self._num_parts = run.optimizer.accumulate_steps
    # In parts, a batch has them as first axis, and its rows as second.
    self._rows_axis = int(self._num_parts > 1)
    sharding.check_batch(run, mesh)
    self._run = run
    self._optimizer = make_optimizer(
      run.optimizer, run.num_steps, functools.partial(part_of, run)
    )
    shapes = jax.eval_shape(self._fresh_state)
    self._layout = sharding.state_shardings(shapes, self.mesh)
    self.abstract_state = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=place
      ),
      shapes,
      self._layout,
    )
    whole = sharding.replicated(self.mesh)
    gather = sharding.gather_for_use(self._layout.params, self.mesh)
    loss = _with_whole_params(LOSSES[run.stage](run), gather)
    self._update = jax.jit(
      make_train_step(loss, self._optimizer, self._num_parts),
      in_shardings=(
        self._layout,
        sharding.batch_sharding(self.mesh, self._rows_axis),
        whole,
      ),
      out_shardings=(self._layout, whole),
      donate_argnums=0,
      compiler_options=_KEEP_BARRIERS
      if self._on_cpu and run.remat != "none"
      else None,
    )
    self._compiled: dict[Any, jax.stages.Compiled] = {}
    # Made by all processes together: none can put a key on others' devices.
    make_rng = jax.jit(lambda: jax.random.key(run.seed), out_shardings=whole)
    self._rng = make_rng()

  def _fresh_state(self) -> TrainState:
    # Shapes are the config's, wherever the numbers come from.
    random = dataclasses.replace(self._run, init=InitConfig())
    params = initial.stage_params(random, jax.random.key(0))
    return init_state(params, self._optimizer)

  def first_state(self) -> TrainState:
    """Returns the state of step 0, on the devices."""
    params = initial.stage_params(self._run, jax.random.key(self._run.seed))
    make = jax.jit(
      lambda tree: init_state(tree, self._optimizer),
      out_shardings=self._layout,
    )
    return make(params)

  def compile(self, batches: Iterable[Batch]) -> None:
    """Compiles the update for batches of these shapes, side by side."""
    lowered: dict[Any, jax.stages.Lowered] = {}
    for batch in batches:
      shape = _shape_of(batch)
      if shape not in self._compiled and shape not in lowered:
        lowered[shape] = self.lower(batch)
    with ThreadPoolExecutor(
      _COMPILING_FOR_CPU if self._on_cpu else _COMPILING
    ) as threads:
      compiled = threads.map(lambda each: each.compile(), lowered.values())
      self._compiled |= dict(zip(lowered, compiled, strict=True))

  def lower(self, batch: Batch) -> jax.stages.Lowered:
    """Lowers the update for batches as this one; its shapes are enough.

    The leaves, this process' share, may be `jax.ShapeDtypeStruct`s.
    """
    place = sharding.batch_sharding(self.mesh, self._rows_axis)
    hosts = jax.process_count()

    def in_parts(leaf: Any) -> jax.ShapeDtypeStruct:
      rows, *rest = leaf.shape
      parts = [self._num_parts] * self._rows_axis
      shape = (*parts, rows * hosts // self._num_parts, *rest)
      dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
      return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    return self._update.lower(
      self.abstract_state, jax.tree.map(in_parts, batch), self._rng
    )

  def update(
    self, state: TrainState, batch: Batch
  ) -> tuple[TrainState, dict[str, Any]]:
    """Applies one update; the old state's buffers are reused.

    Raises:
      KeyError: no such shape was compiled.
    """
    step = self._compiled[_shape_of(batch)]
    return step(state, self._place(batch), self._rng)

  def _place(self, batch: Batch) -> Batch:
    if self._rows_axis:
      parts = self._num_parts
      batch = jax.tree.map(
        lambda rows: rows.reshape(parts, -1, *rows.shape[1:]), batch
      )
    return sharding.to_global(batch, self.mesh, self._rows_axis)


def _with_whole_params(
  loss: LossFn, gather: Callable[[Params], Params]
) -> LossFn:
  return lambda params, batch, rng: loss(gather(params), batch, rng)


def _shape_of(batch: Batch) -> tuple[Any, ...]:
  return tuple(leaf.shape for leaf in jax.tree.leaves(batch))
