# SPDX-License-Identifier: Apache-2.0
import sys
import time

import pytest

from launch import processes
from launch.processes import Processes


def python(code):
  return [sys.executable, "-c", code]


def test_memory_of_children_counts(monkeypatch):
  monkeypatch.setattr(processes, "SAMPLE_SECONDS", 0.05)
  hold = "import time; held = bytearray(b'x' * 100_000_000); time.sleep(3)"
  alone, both = Processes(), Processes()

  alone.together([python("import time; time.sleep(0.5)")])
  run_child = "import subprocess, sys; subprocess.run(sys.argv[1:])"
  both.together([python(hold), [*python(run_child), *python(hold)]])

  assert both.peak_bytes > alone.peak_bytes + 150_000_000


def test_processes_are_left_alone_for_long_after_a_long_look(monkeypatch):
  monkeypatch.setattr(processes, "SAMPLE_SECONDS", 0.05)
  looks = []

  def look(process):
    time.sleep(0.2)  # So the next one comes ten seconds later.
    return looks.append(process.pid) or 0

  monkeypatch.setattr(processes, "_memory_bytes", look)
  Processes().together([python("import time; time.sleep(2)")])

  assert len(looks) == 1


def test_a_failure_stops_the_others_and_hands_on_its_code(monkeypatch, capsys):
  monkeypatch.setattr(processes, "SAMPLE_SECONDS", 0.05)
  began = time.monotonic()

  with pytest.raises(SystemExit) as failed:
    Processes().together(
      [python("import time; time.sleep(60)"), python("raise SystemExit(7)")]
    )

  assert failed.value.code == 7
  assert time.monotonic() - began < 20
  assert "Failed (7): -c raise SystemExit(7)" in capsys.readouterr().err


def test_command_lines_are_those_that_a_user_types():
  assert processes.realm("report", workdir="demo/realm")[1:] == [
    "-m",
    "realm_jax.cli",
    "report",
    "--workdir=demo/realm",
  ]
  assert processes.train(**{"config.seed": 3})[1:] == [
    "-m",
    "launch.local",
    "--config.seed=3",
  ]
