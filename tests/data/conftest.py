# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def unpacked() -> Callable[[Any, str], list[np.ndarray]]:
  """Each row's tokens in packed rows, in the rows' own order."""

  def unpack(rows: Any, name: str) -> list[np.ndarray]:
    line, slot = np.divmod(rows["order"], rows["starts"].shape[1])
    return [
      rows[name][i][rows["mask"][i] == j + 1]
      for i, j in zip(line, slot, strict=True)
    ]

  return unpack
