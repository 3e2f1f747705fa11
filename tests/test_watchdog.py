# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

# A host that is cut off: JAX's requests to process 0 never end.
CUT_OFF = """
import threading
from realm_jax.cluster import Group
from realm_jax.watchdog import Watchdog

def never(*_, **__):
  threading.Event().wait()

class Client:
  key_value_set = key_value_dir_get = never

group = Group(num_processes=2, process_id=1, hosts=("ant", "bee"))
with Watchdog(Client(), group, 1.0) as watchdog, watchdog.waiting():
  never()
"""


def test_a_process_ends_on_time_that_cannot_ask_for_whom_it_waits():
  ended = subprocess.run(
    [sys.executable, "-c", CUT_OFF],
    stderr=subprocess.PIPE,
    text=True,
    timeout=300,
  )
  assert ended.returncode == 1
  assert "process 0 (ant) does not say which (no answer" in ended.stderr
