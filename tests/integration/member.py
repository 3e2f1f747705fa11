# SPDX-License-Identifier: Apache-2.0
"""A process of a group that the environment names: meets the others twice.

The arguments are how long one waits for the others, in seconds, and the process
that never comes to the second meeting.
"""

import logging
import sys
import time

from absl import logging as absl_logging
import jax

from realm_jax import cluster, hosts


def main() -> None:
  absl_logging.use_absl_handler()
  logging.getLogger("realm_jax").setLevel(logging.INFO)
  wait_seconds, late = float(sys.argv[1]), int(sys.argv[2])
  group = cluster.find_group(wait_seconds=wait_seconds)
  with hosts.joined(group, wait_seconds):
    print("met", hosts.gather(jax.process_index()), file=sys.stderr)
    if group.process_id == late:
      time.sleep(60)
    hosts.gather("again")


if __name__ == "__main__":
  main()
