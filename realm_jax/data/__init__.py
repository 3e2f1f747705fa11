# SPDX-License-Identifier: Apache-2.0
"""Host side, NumPy only: text to token arrays."""
