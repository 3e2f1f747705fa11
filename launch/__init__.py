# SPDX-License-Identifier: Apache-2.0
"""Starts `realm` processes where they are to run."""
