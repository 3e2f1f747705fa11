# SPDX-License-Identifier: Apache-2.0
"""How a config says what it does not allow."""


def require(rule: bool, message: str) -> None:
  """Raises ValueError with the message where a rule is broken."""
  if not rule:
    raise ValueError(message)
