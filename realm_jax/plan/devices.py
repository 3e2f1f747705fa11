# SPDX-License-Identifier: Apache-2.0
"""Devices that runs are planned for, from `devices.toml`."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import tomllib
from typing import Any

_FILE = pathlib.Path(__file__).with_name("devices.toml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
  """One kind of device; the units are those of `devices.toml`."""

  name: str
  memory: float
  usable: float
  flops: Mapping[str, float]  # By dtype.
  bandwidth: float
  link: float
  network: float
  domain: int
  host_devices: int
  host_memory: float
  is_cpu: bool = False

  @property
  def usable_memory(self) -> float:
    """Bytes of a device that JAX lets a program have."""
    return self.memory * self.usable


@dataclasses.dataclass(frozen=True)
class Devices:
  """A number of devices of one kind, on as few hosts as hold them."""

  kind: str
  count: int
  device: Device

  def __str__(self) -> str:
    return f"{self.kind}:{self.count}"

  @property
  def hosts(self) -> int:
    """How many hosts, and so processes, there are."""
    return -(-self.count // self.device.host_devices)

  @property
  def on_host(self) -> int:
    """Devices of one host."""
    return min(self.count, self.device.host_devices)

  def sending_rate(self, members: int, stride: int) -> float:
    """Returns how fast a device of a group sends in a ring, bytes a second.

    A ring that stays within a domain has the links. One that does not leaves
    each domain once, and its members there share the cards of all of them: by
    as many parallel rings, each through a card of its own, they send at the
    sum of their rates.

    Args:
      members: of the group.
      stride: between one member's number and the next one's.
    """
    device = self.device
    if (members - 1) * stride < device.domain:
      return device.link
    in_domain = max(1, device.domain // stride)
    return min(device.link, in_domain * device.network)


def parse_devices(text: str) -> Devices:
  """Reads `<kind>:<count>`, such as h100:64.

  Raises:
    ValueError: it is not of this form, or no such kind is known.
  """
  kind, _, count = text.partition(":")
  known = _read()
  if kind not in known or not count.isdecimal() or int(count) < 1:
    raise ValueError(
      f"Devices are <kind>:<count>, such as h100:8, got {text!r}. Kinds: "
      f"{', '.join(known)}."
    )
  device = known[kind]
  number = int(count)
  if number > device.host_devices and number % device.host_devices:
    raise ValueError(
      f"{text}: {number} {kind} fill no whole hosts of {device.host_devices}. "
      f"Use a multiple of {device.host_devices}."
    )
  return Devices(kind, number, device)


@functools.cache
def _read() -> dict[str, Device]:
  with _FILE.open("rb") as file:
    tables = tomllib.load(file)
  sources = tables.pop("sources")
  return {
    kind: Device(**{k: _figure(v, sources) for k, v in table.items()})
    for kind, table in tables.items()
  }


def _figure(value: Any, sources: Mapping[str, str]) -> Any:
  """Returns the figure of a [figure, source]; its source must be listed."""
  if isinstance(value, dict):
    return {key: _figure(each, sources) for key, each in value.items()}
  if isinstance(value, list):
    figure, source = value
    if source not in sources:
      raise ValueError(f"{_FILE.name} has no source {source!r}.")
    return figure
  return value
