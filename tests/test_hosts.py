# SPDX-License-Identifier: Apache-2.0
import sys

from absl import logging as absl_logging
import jax
import pytest

from realm_jax import hosts
from realm_jax.cluster import Group


def test_a_process_alone_has_only_itself_to_ask():
  with hosts.joined(Group(), 1.0), hosts.waiting():
    assert hosts.is_lead()
    assert hosts.gather([True, "a"]) == [[True, "a"]]
    hosts.check_same("config", "a")


def test_processes_of_another_config_are_named(monkeypatch):
  monkeypatch.setattr(hosts, "gather", lambda mine: [mine, "other", mine, "x"])
  with pytest.raises(ValueError, match=r"\[1, 3\] .* another config than"):
    hosts.check_same("config", "a")


def test_a_message_that_is_too_long_is_no_message(monkeypatch):
  monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="202 bytes, above 128"):
    hosts.gather("a" * 200)


def test_each_line_on_the_standard_error_is_labelled(monkeypatch, tmp_path):
  stream = (tmp_path / "stderr").open("w+")
  monkeypatch.setattr(sys, "stderr", stream)
  handler = absl_logging.get_absl_handler().python_handler
  monkeypatch.setattr(handler, "stream", stream)
  hosts._label(3)
  print("one", 1, file=sys.stderr)
  print("two\n\nthree", end="", file=sys.stderr)
  print(", still three", file=sys.stderr)
  handler.stream.write("four\n")
  with stream:
    stream.seek(0)
    lines = stream.read().splitlines()
  assert lines == [
    "[3] one 1",
    "[3] two",
    "[3] ",
    "[3] three, still three",
    "[3] four",
  ]


@pytest.mark.parametrize(
  ("message", "late"),
  [
    (
      "Barrier timed out. Some timed out task names:\n1\n12\n\nRPC: /x",
      [1, 12],
    ),
    ("Barrier failed: UNAVAILABLE: Task 3 heartbeat timeout. This", [3]),
    ("Connection closed by peer", []),
  ],
)
def test_the_coordination_service_says_who_is_late(message, late):
  assert hosts._late(jax.errors.JaxRuntimeError(message)) == late
  assert hosts._late(ValueError(message)) == []
