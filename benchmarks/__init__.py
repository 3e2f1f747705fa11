# SPDX-License-Identifier: Apache-2.0
"""Measurements to be run by hand; each file's docstring has the command."""
