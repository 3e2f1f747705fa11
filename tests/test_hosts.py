# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax import hosts


def test_a_process_alone_has_only_itself_to_ask():
  with hosts.joined("", 1, 0):
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


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("", 2, 0), "num_processes=2 and process_id=0 .* without a coordinator"),
    (("127.0.0.1:1", 2, 2), r"process_id \(2\) must be in 0..1"),
  ],
)
def test_what_does_not_fit_together_is_refused_at_once(arguments, message):
  with (
    pytest.raises(ValueError, match=message),
    hosts.joined(*arguments),
  ):
    pass
