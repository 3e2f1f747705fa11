# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import sys

import pytest

from tests.integration.jobs import ROOT


@pytest.mark.slow
def test_a_short_soak_finds_nothing_and_says_so_in_its_last_line(tmp_path):
  soak = subprocess.run(
    [
      *(sys.executable, "-m", "tests.soak", "--swaps=5", "--seed=0"),
      f"--directory={tmp_path}",
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  last = soak.stdout.splitlines()[-1]
  pattern = r"soak: publishes=(\d+) swaps=(\d+) kills=(\d+) failures=(\d+)"
  publishes, swaps, kills, failures = map(
    int, re.fullmatch(pattern, last).groups()
  )
  assert min(publishes, swaps) >= 5
  assert kills > 0
  assert (failures, soak.returncode) == (0, 0), soak.stdout
