# SPDX-License-Identifier: Apache-2.0
"""Retrieval-augmented language-model pre-training in JAX."""
