# SPDX-License-Identifier: Apache-2.0
"""Hosts with names, addresses and links of their own, on this machine.

Each is a network namespace with a veth pair to a bridge, which is in one, too:
nothing of the machine's own network is touched, and all is gone when the
processes that hold the namespaces have ended, which they do with this one.
"""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

from tests.integration.jobs import ROOT

_SWITCH = "switch"


def why_not() -> str:
  """Returns what this machine lacks; "" if it can have hosts."""
  if os.geteuid() != 0:
    return "only root may make network namespaces"
  programs = ("ip", "unshare", "nsenter")
  if missing := [name for name in programs if not shutil.which(name)]:
    return (
      f"{', '.join(missing)} not found; on Debian and Ubuntu they come with: "
      "apt-get install iproute2 util-linux"
    )
  try_it = "unshare --net --uts --mount ip link add type veth"
  tried = subprocess.run(try_it.split(), stderr=subprocess.PIPE, text=True)
  return tried.stderr


class Network:
  """Some hosts that reach each other by name; leaving ends all on them."""

  def __init__(self, folder: pathlib.Path, names: Sequence[str]) -> None:
    """Makes nothing yet.

    Args:
      folder: for a file of the hosts' names.
      names: of the hosts.
    """
    self._names, self._table = names, folder / "hosts"
    self._stack = contextlib.ExitStack()
    self._holders: dict[str, subprocess.Popen] = {}

  def __enter__(self) -> "Network":
    with contextlib.ExitStack() as stack:
      self._stack = stack
      self._make()
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_: object) -> None:
    self._stack.close()

  def start(
    self, host: str, log: pathlib.Path, *command: str, **environment: str
  ) -> subprocess.Popen:
    """Starts a process on a host; what it says is appended to a log."""
    with log.open("a") as output:
      process = subprocess.Popen(
        [*self._on(host), *command],
        env=os.environ | environment,
        stdout=output,
        stderr=output,
        # A process group of its own, so that all of it can be killed.
        start_new_session=True,
      )
    self._stack.callback(_kill, process)
    return process

  def cut(self, host: str) -> None:
    """Pulls a host's cable out of the switch."""
    self._link(host, "down")

  def mend(self, host: str) -> None:
    """Puts it in again."""
    self._link(host, "up")

  def _link(self, host: str, state: str) -> None:
    self._run(_SWITCH, f"ip link set {host} {state}")

  def _make(self) -> None:
    addresses = {name: f"10.0.0.{i + 1}" for i, name in enumerate(self._names)}
    lines = ["127.0.0.1 localhost"]
    lines += [f"{address} {name}" for name, address in addresses.items()]
    self._table.write_text("\n".join(lines) + "\n")
    self._hold(_SWITCH)
    self._run(_SWITCH, "ip link add bridge type bridge")
    self._run(_SWITCH, "ip link set bridge up")
    for name, address in addresses.items():
      self._hold(name)
      pid = self._holders[name].pid
      self._run(
        _SWITCH, f"ip link add {name} type veth peer name eth0 netns {pid}"
      )
      self._run(_SWITCH, f"ip link set {name} master bridge up")
      self._run(name, f"ip address add {address}/24 dev eth0")
      self._run(name, "ip link set eth0 up")

  def _hold(self, name: str) -> None:
    """Makes a host, which is there as long as a process that reads from us."""
    script = (
      'hostname "$1" && mount --bind "$2" /etc/hosts && ip link set lo up '
      "&& echo made && exec cat"
    )
    holder = self._stack.enter_context(
      subprocess.Popen(
        [
          *["unshare", "--net", "--uts", "--mount"],
          *["sh", "-c", script, "sh", name, str(self._table)],
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
      )
    )
    assert holder.stdout and holder.stdout.readline() == "made\n"
    self._holders[name] = holder

  def _on(self, host: str) -> list[str]:
    return [
      *["nsenter", f"--target={self._holders[host].pid}"],
      *["--net", "--uts", "--mount", f"--wd={ROOT}"],
    ]

  def _run(self, host: str, command: str) -> None:
    subprocess.run([*self._on(host), *command.split()], check=True)


def _kill(process: subprocess.Popen) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()
