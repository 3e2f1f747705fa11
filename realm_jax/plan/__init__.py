# SPDX-License-Identifier: Apache-2.0
"""What a run needs of memory, network and time, before anything starts."""
