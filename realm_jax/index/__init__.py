# SPDX-License-Identifier: Apache-2.0
"""Document embeddings as versioned, immutable data."""
