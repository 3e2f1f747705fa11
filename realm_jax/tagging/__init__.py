# SPDX-License-Identifier: Apache-2.0
"""Salient spans found ahead of training, as published: names and dates."""
