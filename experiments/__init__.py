# SPDX-License-Identifier: Apache-2.0
"""One ml_collections file per run."""
