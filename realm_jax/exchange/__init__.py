# SPDX-License-Identifier: Apache-2.0
"""Models from other libraries, and for them: `realm import`, `realm export`."""
