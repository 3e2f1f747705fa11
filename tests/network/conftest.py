# SPDX-License-Identifier: Apache-2.0
from tests.integration.conftest import compiled

__all__ = ["compiled"]  # A fixture that every test here has.
