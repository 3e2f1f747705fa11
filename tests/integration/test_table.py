# SPDX-License-Identifier: Apache-2.0
"""`realm table` as processes, undisturbed and killed."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from realm_jax import checkpoints
from tests.integration.jobs import PATIENCE_SECONDS, ROOT

CONFIG = pathlib.Path(__file__).with_name("tiny_table.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  folder = tmp_path_factory.mktemp("table")
  tiny_tokenizer.save(folder / "tokenizer")
  (folder / "corpus").symlink_to(tiny_corpus.directory)
  lines = [
    {
      "question": f"Capital of {p.title}?",
      "answers": [p.text.split()[5][:-1]],
      "passage_uid": p.uid,
    }
    for p in tiny_corpus.passages(range(8))
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "questions.jsonl").write_text(text)
  return folder


@contextlib.contextmanager
def table(data, workdir):
  """Starts the command, with all that it starts in a group of its own."""
  command = [sys.executable, "-m", "realm_jax.cli", "table"]
  command += [f"--config={CONFIG}:{data}", f"--workdir={workdir}"]
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    start_new_session=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finished(data, workdir):
  """Runs a table to its end; returns what it said and its cells by row."""
  with table(data, workdir) as process:
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
  assert process.returncode == 0, said
  cells = json.loads((workdir / "table.json").read_text())
  return said, {cell["row"]: cell for cell in cells}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed")
  said, cells = finished(data, workdir)
  return workdir, said, cells


def test_a_table_is_trained_scored_printed_and_not_made_twice(
  data, undisturbed
):
  workdir, said, cells = undisturbed
  assert "| ICT only | 0 |" in said and "| Closed book | 0 |" in said
  for cell in cells.values():
    assert cell["figures"]["num_examples"] == 4
    assert min(cell["seconds"].values()) > 0
  assert set(cells["ict"]["seconds"]) == {"ict", "qa", "evaluation"}
  assert set(cells["closed"]["seconds"]) == {"closed", "evaluation"}
  # The gold passage was not searched for, and closed book none was.
  recall = [r for r, c in cells.items() if "answer_recall_at_5" in c["figures"]]
  assert recall == ["ict"]
  assert "| Gold, beyond: ICT only | 0 |" in said
  figures = {row: cell["figures"] for row, cell in cells.items()}
  assert cells["gold"]["gains"]["f1"] == pytest.approx(
    figures["gold"]["f1"] - figures["ict"]["f1"]
  )

  began = time.time()
  assert finished(data, workdir)[1] == cells
  changed = [p for p in workdir.rglob("*") if p.stat().st_mtime > began]
  assert {p.name for p in changed if p.is_file()} == {
    ".lock",
    "table.json",
    "table.md",
  }


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_table_that_was_killed_ends_with_the_same_figures(
  data, undisturbed, tmp_path, whole_group
):
  """Killed with its processes, or alone: they finish the stage then."""
  with table(data, tmp_path) as process:
    qa = tmp_path / "stages" / "qa-0"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while max(checkpoints.steps(qa), default=0) < 8:
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.02)
    ict = (tmp_path / "stages" / "ict-0.json").read_text()
    if whole_group:
      os.killpg(process.pid, signal.SIGKILL)
    else:
      process.kill()
    process.wait()
    said, cells = finished(data, tmp_path)

  assert ("Waiting for what still works" in said) != whole_group
  _, _, wanted = undisturbed
  assert (tmp_path / "stages" / "ict-0.json").read_text() == ict
  for row, cell in cells.items():
    assert cell["figures"] == wanted[row]["figures"]
