# SPDX-License-Identifier: Apache-2.0
"""Waits until all processes of a group have come, and says who has not.

JAX's coordination service waits for them as well, but when one does not come it
ends the process without a name. So process 0 is called first at the address
where that service will be: each of the others sends a line with its number and
host, and gets a line back once all have come, or that some have not.
"""

from collections.abc import Callable
import contextlib
import json
import socket
import time
from typing import Any

from realm_jax.cluster import Group

RETRY_SECONDS = 0.5
_LINE_BYTES = 1 << 20
_HELLO_SECONDS = 5.0  # For a caller's line; who calls and says nothing is none.


def call(group: Group, wait_seconds: float) -> tuple[str, ...]:
  """Returns the host names, by process, once all have come.

  Raises:
    TimeoutError: some have not come in time; names them.
    ValueError: two processes say that they are the same one, or they were
      told of groups of another size.
    OSError: process 0 cannot listen at its port.
  """
  deadline = time.monotonic() + wait_seconds
  if group.process_id == 0:
    return _Lead(group, wait_seconds).gather(deadline)
  return _report(group, wait_seconds, deadline)


class _Lead:
  """Process 0: listens until all have called."""

  def __init__(self, group: Group, wait_seconds: float) -> None:
    self._group, self._wait_seconds = group, wait_seconds
    self._callers: dict[int, socket.socket] = {}
    self._hosts = {0: socket.gethostname()}

  def gather(self, deadline: float) -> tuple[str, ...]:
    with contextlib.ExitStack() as stack:
      server = stack.enter_context(_listen(self._group))
      while len(self._hosts) < self._group.num_processes:
        server.settimeout(max(deadline - time.monotonic(), 1e-3))
        try:
          connection, _ = server.accept()
        except TimeoutError:
          problem = self._missing()
          self._answer({"missing": problem})
          raise TimeoutError(problem) from None
        stack.enter_context(connection)
        self._admit(connection)
        self._forget_those_that_hung_up()
      hosts = tuple(self._hosts[i] for i in range(self._group.num_processes))
      self._answer({"hosts": hosts})
      self._wait_until_they_hang_up()
      return hosts

  def _admit(self, connection: socket.socket) -> None:
    connection.settimeout(_HELLO_SECONDS)
    hello = _read(connection)
    if not isinstance(hello, dict) or {*hello} != {"process", "of", "host"}:
      return  # Not one of ours.
    process, size = int(hello["process"]), self._group.num_processes
    if hello["of"] != size:
      _send(
        connection,
        {
          "refused": f"Process {process} was told of {hello['of']} processes, "
          f"and process 0 of {size}: start all with the same number."
        },
      )
    elif process in self._callers and not _hung_up(self._callers[process]):
      _send(
        connection,
        {
          "refused": f"Two processes say that they are process {process}, on "
          f"{self._hosts[process]} and {hello['host']}: give each its own."
        },
      )
    else:
      self._callers[process] = connection
      self._hosts[process] = str(hello["host"])

  def _forget_those_that_hung_up(self) -> None:
    for process, caller in list(self._callers.items()):
      if _hung_up(caller):
        del self._callers[process], self._hosts[process]

  def _missing(self) -> str:
    group = self._group
    missing = [i for i in range(group.num_processes) if i not in self._hosts]
    return (
      f"{_listed(missing, group.name)} of {group.num_processes} did not come "
      f"within {self._wait_seconds:.0f} s. "
      f"{_listed([*self._hosts], lambda i: f'{i} ({self._hosts[i]})')} did. "
      "Look whether they were started and reach "
      f"{group.coordinator}, or give --peer_wait_seconds."
    )

  def _answer(self, message: dict[str, Any]) -> None:
    for caller in self._callers.values():
      with contextlib.suppress(OSError):
        _send(caller, message)

  def _wait_until_they_hang_up(self) -> None:
    # Who closes first keeps the port busy for a while: JAX wants this one.
    for caller in self._callers.values():
      with contextlib.suppress(OSError):
        caller.recv(1)


def _report(
  group: Group, wait_seconds: float, deadline: float
) -> tuple[str, ...]:
  """One of the others: calls until process 0 answers."""
  host, _, port = group.coordinator.rpartition(":")
  hello = {
    "process": group.process_id,
    "of": group.num_processes,
    "host": socket.gethostname(),
  }
  problem: object = "no answer"
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection(
        (host.strip("[]"), int(port)), left
      ) as lead:
        _send(lead, hello)
        # Process 0 may have come later than this one, and waits on then.
        lead.settimeout(left + wait_seconds)
        answer = _read(lead)
    except OSError as error:
      problem, answer = error, None
    if isinstance(answer, dict):
      if "hosts" in answer:
        return tuple(answer["hosts"])
      if "missing" in answer:
        raise TimeoutError(answer["missing"])
      raise ValueError(answer["refused"])
    time.sleep(RETRY_SECONDS)
  raise TimeoutError(
    f"Process {group.name(0)} did not answer at {group.coordinator} within "
    f"{wait_seconds:.0f} s ({problem}). Look whether it was started and this "
    "host can reach it, or give --peer_wait_seconds."
  )


def _listed(processes: list[int], name: Callable[[int], str]) -> str:
  head = "Process" if len(processes) == 1 else "Processes"
  return f"{head} {', '.join(name(process) for process in processes)}"


def _listen(group: Group) -> socket.socket:
  port = int(group.coordinator.rpartition(":")[2])
  both = socket.has_dualstack_ipv6()
  try:
    return socket.create_server(
      ("", port),
      family=socket.AF_INET6 if both else socket.AF_INET,
      dualstack_ipv6=both,
      backlog=max(group.num_processes, 128),
    )
  except OSError as error:
    raise OSError(
      f"Process 0 cannot listen at port {port}, of its coordinator address "
      f"{group.coordinator}: {error}."
    ) from error


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
  connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> object:
  """Returns a line's JSON; None where none comes, or something else."""
  try:
    with connection.makefile("rb") as lines:
      return json.loads(lines.readline(_LINE_BYTES))
  except (OSError, ValueError):
    return None


def _hung_up(connection: socket.socket) -> bool:
  try:
    connection.setblocking(False)
    return connection.recv(1, socket.MSG_PEEK) == b""
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    connection.settimeout(_HELLO_SECONDS)
