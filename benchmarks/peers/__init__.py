# SPDX-License-Identifier: Apache-2.0
"""Other implementations of the same step, each in its own environment."""
