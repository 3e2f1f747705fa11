# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest

from realm_jax.train.lookahead import LookAhead


class Counting:
  """A data iterator whose state is how many elements were drawn."""

  def __init__(self):
    self.drawn = 0

  def __next__(self):
    self.drawn += 1
    return self.drawn - 1

  def get_state(self):
    return {"next_index": self.drawn}


def feed(
  prepare, *, first_step=0, num_steps=10, depth=3, plan=lambda step: step
):
  data = Counting()
  ahead = LookAhead(
    data,
    plan,
    prepare,
    first_step=first_step,
    num_steps=num_steps,
    depth=depth,
  )
  return data, ahead


def test_batches_come_in_order_with_their_own_data_state():
  def slow_when_even(examples, plan):
    time.sleep(0.01 * (examples % 2 == 0))
    return {"x": examples, "plan": plan}

  _, ahead = feed(slow_when_even)
  for step in range(10):
    fed = ahead.next()
    assert fed.batch == {"x": step, "plan": step}
    assert fed.data_state == {"next_index": step + 1}
  ahead.close()


def test_it_prepares_no_further_ahead_than_asked_nor_beyond_the_last_step():
  data, ahead = feed(lambda examples, plan: {}, num_steps=5, depth=2)
  ahead.next()
  assert data.drawn == 3
  for _ in range(4):
    ahead.next()
  assert data.drawn == 5
  ahead.close()


def test_preparation_goes_on_while_the_caller_is_busy():
  second_done = threading.Event()

  def prepare(examples, plan):
    if examples == 1:
      second_done.set()
    return {}

  _, ahead = feed(prepare)
  ahead.next()
  assert second_done.wait(timeout=60)
  ahead.close()


def test_a_batch_stays_until_it_may_be_fed():
  class Refused(Exception):
    pass

  def refuse(ready):
    raise Refused

  told = []

  def at_the_third_time(ready):
    told.append(ready)
    return len(told) == 3

  prepared = threading.Event()
  _, ahead = feed(lambda examples, plan: {"x": prepared.wait(timeout=60)})
  with pytest.raises(Refused):
    ahead.next(refuse)
  threading.Timer(0.3, prepared.set).start()
  fed = ahead.next(at_the_third_time)
  assert (fed.plan, fed.data_state) == (0, {"next_index": 1})
  assert told == [False, True, True]
  ahead.close()


def test_the_wait_is_what_the_caller_waited():
  _, ahead = feed(lambda examples, plan: time.sleep(0.05) or {}, depth=0)
  assert ahead.next().wait_seconds >= 0.04
  ahead.close()


def test_an_error_in_preparation_is_raised_where_its_batch_is_due():
  def fail_at_two(examples, plan):
    if examples == 2:
      raise OSError("no such passage")
    return {}

  _, ahead = feed(fail_at_two)
  ahead.next()
  ahead.next()
  with pytest.raises(OSError, match="no such passage"):
    ahead.next()
  ahead.close()
