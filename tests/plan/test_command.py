# SPDX-License-Identifier: Apache-2.0
"""`realm plan` as a user starts it."""

import json
import pathlib
import subprocess
import sys

from realm_jax.plan import command
from tests.plan.test_estimate import fake_cost, task  # noqa: F401

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / "tests" / "integration" / "tiny_run.py"


def test_a_plan_is_a_page_and_then_a_line_of_json(tmp_path):
  told = subprocess.run(
    [
      *[sys.executable, "-m", "realm_jax.cli", "plan"],
      *[f"--config={TINY}:mlm,{tmp_path}", "--devices=cpu:2"],
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert told.returncode == 0, told.stderr
  *page, last = told.stdout.splitlines()
  figures = json.loads(last)
  assert figures["fits"]
  assert figures["refresh"] is None  # Nothing is searched.
  assert figures["sent_bytes_per_device"]["both"] > 0
  for title in ("Memory of a device", "Memory of a host", "A step"):
    assert title in "\n".join(page)


def test_what_does_not_fit_is_refused(task, monkeypatch, capsys):  # noqa: F811
  monkeypatch.setattr(command, "_simulate_devices", lambda task: None)
  fits = command.run_plan(
    task.run,
    devices="h100:8",
    builder_devices="h100:1",
    passages=1000,
    efficiency=0.4,
  )
  figures = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert not fits
  assert figures["builder_devices"] == "h100:1"
  assert figures["refresh"]["passages"] == 1000
  assert [each["flags"] for each in figures["would_fit"]] == [
    "--config.mesh.data=-1 --config.mesh.fsdp=4"
  ]
