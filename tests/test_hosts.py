# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax import hosts


def test_a_process_alone_has_only_itself_to_ask():
  with hosts.joined("", 1, 0):
    assert hosts.is_lead()
    assert hosts.gather([True, "a"]) == [[True, "a"]]
    hosts.barrier("here")


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
