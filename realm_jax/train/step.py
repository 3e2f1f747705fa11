# SPDX-License-Identifier: Apache-2.0
"""The training state and one pure update of it, for any objective."""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from realm_jax.shapes import Batch, Params, Sums

# (params, batch, rng) -> (loss in nats, sums of metrics).
LossFn = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Sums]]
StepFn = Callable[["TrainState", Batch, jax.Array], tuple["TrainState", Sums]]


@struct.dataclass
class TrainState:
  """All arrays that a checkpoint holds: no functions, no config."""

  # Typed loosely: JAX rebuilds the tree with shapes and shardings as leaves.
  step: Any  # i32[]: updates already applied.
  params: Any
  opt_state: Any


def init_state(
  params: Params, optimizer: optax.GradientTransformation
) -> TrainState:
  """Returns the state before the first update."""
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_train_step(
  loss_fn: LossFn, optimizer: optax.GradientTransformation
) -> StepFn:
  """Binds what is static; the caller jits the result with its shardings."""

  def train_step(
    state: TrainState, batch: Batch, rng: jax.Array
  ) -> tuple[TrainState, Sums]:
    # One stream a step, from `step` alone: a resumed run repeats no draw.
    rng = jax.random.fold_in(rng, state.step)
    (_, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, batch, rng
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    sums |= {"grad_norm": (optax.tree.norm(grads), jnp.ones(()))}
    return TrainState(state.step + 1, params, opt_state), sums

  return train_step
