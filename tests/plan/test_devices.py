# SPDX-License-Identifier: Apache-2.0
"""The devices' file, and how fast a ring of devices sends."""

import pathlib
import tomllib

import pytest

from realm_jax.plan import devices
from realm_jax.plan.devices import parse_devices

FILE = pathlib.Path(devices.__file__).with_name("devices.toml")
TABLES = tomllib.loads(FILE.read_text(encoding="utf-8"))
KINDS = [kind for kind in TABLES if kind != "sources"]


def cited(value):
  if isinstance(value, list):
    yield value[1]
  if isinstance(value, dict):
    for each in value.values():
      yield from cited(each)


def test_every_source_is_cited():
  assert set(cited(TABLES)) == set(TABLES["sources"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_of_a_device_has_a_source(kind):
  figures = {k: v for k, v in TABLES[kind].items() if isinstance(v, list)}
  assert {"memory", "bandwidth", "link", "network"} <= set(figures)
  assert all(len(value) == 2 for value in figures.values())
  device = parse_devices(f"{kind}:1").device
  assert device.flops["bfloat16"] >= device.flops["float32"] > 0
  assert device.network <= device.link


def test_devices_fill_hosts():
  some = parse_devices("h100:64")
  assert (some.hosts, some.on_host, str(some)) == (8, 8, "h100:64")
  assert parse_devices("h100:4").hosts == 1


@pytest.mark.parametrize("text", ["h100", "h100:", "h100:0", "k80:8", "h100:x"])
def test_what_is_no_number_of_a_known_kind_is_refused(text):
  with pytest.raises(ValueError, match="cpu, a100, h100"):
    parse_devices(text)


def test_hosts_are_whole():
  with pytest.raises(ValueError, match="multiple of 8"):
    parse_devices("h100:12")


def test_a_ring_within_a_node_has_the_links_and_one_beyond_the_cards():
  some = parse_devices("h100:64")
  assert some.sending_rate(8, 1) == 450e9  # A node's NVLink.
  assert some.sending_rate(64, 1) == 8 * 50e9  # Eight rings, a card each.
  assert some.sending_rate(8, 8) == 50e9  # One device of each node.
  assert parse_devices("v5p:128").sending_rate(128, 1) == 600e9  # One slice.
