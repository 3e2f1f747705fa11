# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint the builder takes next, by refresh.policy."""

from realm_jax.config import RefreshConfig


def next_step(
  steps: list[int],
  handled: list[int],
  refresh: RefreshConfig,
  *,
  done: bool,
) -> int | None:
  """Returns the checkpoint to index next, or None while there is none.

  Args:
    steps: of the checkpoints that exist, ascending.
    handled: of those published or refused, ascending.
    refresh: policy and every_steps.
    done: no checkpoint will follow.

  Raises:
    FileNotFoundError: under lockstep, a refresh checkpoint was deleted before
      it was indexed.
  """
  last_handled = handled[-1] if handled else -1
  pending = [step for step in steps if step > last_handled]
  if not pending:
    return None
  if refresh.policy == "async":
    return pending[-1]
  if refresh.policy == "never":
    if not handled:
      return pending[0]
    return pending[-1] if done else None
  every = refresh.every_steps
  due = (last_handled // every + 1) * every
  if due in pending:
    return due
  if due < pending[-1]:
    raise FileNotFoundError(
      f"Checkpoint {due} is gone, and refresh.policy='lockstep' needs its "
      f"index; there are {steps}. Raise keep_checkpoints, so that one lives "
      "until it is indexed."
    )
  return pending[-1] if done else None
