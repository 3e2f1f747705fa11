# SPDX-License-Identifier: Apache-2.0
"""Over real sockets; the processes are threads here."""

from concurrent import futures
import json
import socket
import time

import pytest

from realm_jax import roll_call
from realm_jax.cluster import Group

HOST = socket.gethostname()


@pytest.fixture
def call(monkeypatch):
  """Calls as one process of a group; its result comes later."""
  monkeypatch.setattr(roll_call, "RETRY_SECONDS", 0.02)
  with socket.create_server(("127.0.0.1", 0)) as free:
    address = f"127.0.0.1:{free.getsockname()[1]}"
  with futures.ThreadPoolExecutor() as pool:

    def start(process, of, seconds=20.0, hosts=()):
      group = Group(
        coordinator=address, num_processes=of, process_id=process, hosts=hosts
      )
      return pool.submit(roll_call.call, group, seconds)

    start.address = ("127.0.0.1", int(address.partition(":")[2]))
    yield start


def connect(address):
  """Connects to process 0, as soon as it listens."""
  while True:
    try:
      return socket.create_connection(address)
    except ConnectionRefusedError:
      time.sleep(0.02)


def test_all_come_in_any_order_and_the_port_is_free_again(call):
  late = [call(process, 3) for process in (2, 1)]
  assert call(0, 3).result() == (HOST,) * 3
  assert [other.result() for other in late] == [(HOST,) * 3] * 2
  socket.create_server(call.address).close()


def test_all_are_told_who_is_missing(call):
  lead = call(0, 4, seconds=1.0, hosts=("a", "b", "c", "d"))
  other = call(2, 4)
  for each in (lead, other):
    with pytest.raises(TimeoutError, match=r"Processes 1 \(b\), 3 \(d\) of 4"):
      each.result()
  with pytest.raises(
    TimeoutError, match=rf"Processes 0 \({HOST}\), 2 \({HOST}"
  ):
    lead.result()


def test_process_0_may_be_the_one_that_is_missing(call):
  with pytest.raises(
    TimeoutError, match=r"Process 0 \(a\) did not answer at 127\S+ within 0 s"
  ):
    call(1, 2, seconds=0.1, hosts=("a", "b")).result()


def test_who_hangs_up_has_not_come_and_may_come_again(call):
  lead = call(0, 3)
  hello = {"process": 1, "of": 3, "host": "x"}
  with connect(call.address) as gone:
    gone.sendall(json.dumps(hello).encode() + b"\n")
  others = [call(1, 3), call(2, 3)]
  assert lead.result() == others[0].result() == others[1].result()


def test_strangers_are_not_counted(call):
  lead = call(0, 2)
  for line in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": 1}\n', b""):
    with connect(call.address) as stranger:
      stranger.sendall(line)
      stranger.shutdown(socket.SHUT_WR)
  assert call(1, 2).result() == lead.result()


def test_a_group_of_another_size_is_refused(call):
  lead = call(0, 2)
  with pytest.raises(ValueError, match="told of 3 processes, and process 0 of"):
    call(1, 3).result()
  call(1, 2).result()
  lead.result()


def test_the_second_that_says_it_is_the_same_process_is_refused(call):
  lead, twins = call(0, 3), [call(1, 3), call(1, 3)]
  (second,), (first,) = futures.wait(twins, return_when=futures.FIRST_COMPLETED)
  with pytest.raises(ValueError, match="Two processes say that they are proc"):
    second.result()
  call(2, 3).result()
  assert first.result() == lead.result()


def test_a_port_in_use_is_named(call):
  with (
    socket.create_server(call.address),
    pytest.raises(OSError, match="cannot listen at port"),
  ):
    call(0, 2).result()
