# SPDX-License-Identifier: Apache-2.0
"""What each `realm <command>` takes and does; nothing heavy is imported yet."""
