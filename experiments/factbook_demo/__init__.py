# SPDX-License-Identifier: Apache-2.0
"""REALM from scratch on the factbook, in minutes on two cores."""
