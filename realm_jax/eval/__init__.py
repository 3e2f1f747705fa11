# SPDX-License-Identifier: Apache-2.0
"""Scores, answers with evidence, and the report."""
