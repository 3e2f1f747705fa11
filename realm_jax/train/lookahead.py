# SPDX-License-Identifier: Apache-2.0
"""Batches prepared on the host a bounded number of steps ahead of the device.

Examples are drawn in order on the caller's thread, with the data iterator's
state noted for each batch; what is slow (tokens, search, collating) runs on
worker threads. So a checkpoint names exactly the batches that were trained
on, however far ahead the workers are.
"""

import collections
from collections.abc import Callable
import concurrent.futures
import dataclasses
import time
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from realm_jax.shapes import Batch

Plan = TypeVar("Plan")
_POLL_SECONDS = 0.2


@runtime_checkable
class DataIterator(Protocol):
  """What grain's dataset iterators offer."""

  def __next__(self) -> Any: ...

  def get_state(self) -> dict[str, Any]:
    """Returns where the iterator stands, right after the last element."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fed(Generic[Plan]):
  """One step's batch and where the run stands when it has been trained on."""

  batch: Batch
  plan: Plan
  data_state: dict[str, Any]
  wait_seconds: float  # How long the caller waited for it.


@dataclasses.dataclass(frozen=True)
class _Ahead(Generic[Plan]):
  future: concurrent.futures.Future[Batch]
  plan: Plan
  data_state: dict[str, Any]


class LookAhead(Generic[Plan]):
  """Feeds steps `first_step` to `num_steps - 1`, `depth` batches ahead."""

  def __init__(
    self,
    data: DataIterator,
    plan: Callable[[int], Plan],
    prepare: Callable[[Any, Plan], Batch],
    *,
    first_step: int,
    num_steps: int,
    depth: int,
  ) -> None:
    """Starts nothing yet: the first `next` draws the first batches.

    Args:
      data: examples of one batch at a time, this host's rows.
      plan: what a step's batch is prepared with (an index version); called
        in the order of steps on the caller's thread.
      prepare: (examples, plan) -> batch; called on a worker thread.
      first_step: of the first batch fed.
      num_steps: where feeding ends.
      depth: batches in preparation beyond the one being trained on.
    """
    self._data, self._plan, self._prepare = data, plan, prepare
    self._next_step, self._num_steps = first_step, num_steps
    self._depth = depth
    self._ahead: collections.deque[_Ahead[Plan]] = collections.deque()
    self._workers = concurrent.futures.ThreadPoolExecutor(
      max_workers=2, thread_name_prefix="look-ahead"
    )

  def next(self, may_feed: Callable[[bool], bool] = bool) -> Fed[Plan]:
    """Returns the next step's batch; raises what its preparation raised.

    Args:
      may_feed: called with whether the batch is ready, a few times a second,
        until it returns True; what it raises leaves the batch here.
    """
    started = time.perf_counter()
    self._fill()
    future = self._ahead[0].future
    ready = _is_ready(future)
    asked = time.perf_counter()
    fed = may_feed(ready)
    # Where that asks other hosts, it lasts until they have come here.
    started += time.perf_counter() - asked
    while not fed:
      fed = may_feed(_is_ready(future))
    ahead = self._ahead.popleft()
    return Fed(
      batch=future.result(),
      plan=ahead.plan,
      data_state=ahead.data_state,
      wait_seconds=time.perf_counter() - started,
    )

  def _fill(self) -> None:
    while len(self._ahead) <= self._depth and self._next_step < self._num_steps:
      plan = self._plan(self._next_step)
      examples = next(self._data)
      future = self._workers.submit(self._prepare, examples, plan)
      self._ahead.append(_Ahead(future, plan, self._data.get_state()))
      self._next_step += 1

  def close(self) -> None:
    """Drops what is in preparation and ends the threads."""
    self._workers.shutdown(wait=True, cancel_futures=True)


def _is_ready(future: concurrent.futures.Future[Batch]) -> bool:
  """Waits for a moment only: whoever waits may be asked to stop."""
  return bool(concurrent.futures.wait([future], _POLL_SECONDS).done)
