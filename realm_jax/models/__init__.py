# SPDX-License-Identifier: Apache-2.0
"""Linen modules: parameters and forward passes, no losses."""
