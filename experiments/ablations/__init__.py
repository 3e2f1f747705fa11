# SPDX-License-Identifier: Apache-2.0
"""What each part of REALM contributes (REALM, table 2)."""
