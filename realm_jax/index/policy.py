# SPDX-License-Identifier: Apache-2.0
"""What refresh.policy asks of the builder, and when it is late."""

from realm_jax.config import RefreshConfig

# A builder that is always busy publishes indexes up to two refreshes old.
_OVERDUE = 3


def next_step(
  steps: list[int],
  handled: list[int],
  refresh: RefreshConfig,
  *,
  done: bool,
) -> int | None:
  """Returns the checkpoint to index next, or None while there is none.

  Under async that is the newest there is; where refresh.steps is given, the
  newest of those, or the first one after it that was not deleted.

  Args:
    steps: of the checkpoints that exist, ascending.
    handled: of those published or refused, ascending.
    refresh: the policy.
    done: no checkpoint will follow.

  Raises:
    FileNotFoundError: under lockstep, a refresh checkpoint was deleted before
      it was indexed.
  """
  last_handled = handled[-1] if handled else -1
  pending = [step for step in steps if step > last_handled]
  if not pending:
    return None
  if refresh.policy == "lockstep":
    due = refresh.next_refresh(last_handled)
    if due in pending:
      return due
    if due is not None and due < pending[-1]:
      raise FileNotFoundError(
        f"Checkpoint {due} is gone, and refresh.policy='lockstep' needs its "
        f"index; there are {steps}. Raise keep_checkpoints, so that one lives "
        "until it is indexed."
      )
  elif refresh.policy == "async" and not refresh.steps:
    return pending[-1]
  elif (due := refresh.last_refresh(pending[-1])) > last_handled and not done:
    return next(step for step in pending if step >= due)
  return pending[-1] if done else None


class OverdueAlarm:
  """Tells when the next index is overdue: rarely, however long that lasts.

  That is when the one in use is more than three times as old as it was at the
  next refresh step, and again each time that its age has doubled.
  """

  def __init__(self, refresh: RefreshConfig) -> None:
    """Silent for ever where the policy wants no further index."""
    self._refresh = refresh
    self._index_step = -1
    self._limit = 0  # Steps of age; beyond, the alarm rings.

  def rings(self, step: int, index_step: int) -> bool:
    """Whether to warn at `step`, which the index of `index_step` serves."""
    due = self._refresh.next_refresh(index_step)
    if due is None:
      return False
    if index_step != self._index_step:
      self._index_step = index_step
      self._limit = _OVERDUE * (due - index_step)
    age = step - index_step
    if age <= self._limit:
      return False
    while self._limit < age:
      self._limit *= 2
    return True
