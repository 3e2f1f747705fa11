# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / "tests" / "integration" / "tiny_run.py"


def realm(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "realm_jax.cli", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_help_lists_every_command_and_an_unknown_one_is_a_usage_error():
  told = realm("--help")
  assert told.returncode == 0
  for command in ("prepare-corpus", "edit-corpus", "train", "build-index"):
    assert command in told.stdout
  for command in ("evaluate", "ask", "probe", "report"):
    assert command in told.stdout
  wrong = realm("trian")
  assert wrong.returncode == 2
  assert "usage: realm" in wrong.stderr


@pytest.mark.parametrize(
  "program", [["-m", "realm_jax.cli", "train"], ["-m", "launch.local"]], ids=str
)
@pytest.mark.parametrize(
  ("arguments", "code", "told"),
  [
    (
      ["--help"],
      0,
      ["--workdir: The run's directory", "--peer_wait_seconds: "],
    ),
    (["--workdir=x"], 2, ["Flag --config must have a value"]),
    (["--confg=x"], 2, ["'confg'. Did you mean: config ?"]),
    (
      [f"--config={TINY}:realm,x", "--config.batch_sise=1", "--workdir=x"],
      2,
      ["The config has no 'batch_sise'", 'Did you mean "batch_size"'],
    ),
    (["--config=x/y.py", "--workdir=x"], 1, ["No such file", "x/y.py"]),
  ],
  ids=["help", "required", "unknown", "setting", "file"],
)
def test_flags_are_told_and_wrong_ones_named(
  program, arguments, code, told, tmp_path
):
  ended = subprocess.run(
    [sys.executable, *program, *arguments],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert ended.returncode == code
  text = ended.stdout if code == 0 else ended.stderr
  assert all(each in text for each in told), text
  assert "Traceback" not in ended.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      [
        "train",
        f"--config={TINY}:realm,x",
        "--workdir=x",
        "--config.batch_size=0",
      ],
      "batch_size must be positive, got 0",
    ),
    (["ask", "--workdir=x"], "is not a run's workdir"),
    (["probe", "--workdir=x", "3 is prime."], "'3 is prime.' marks 0 spans"),
    (["probe", "--workdir=x", "[[3]] is prime."], "is not a run's workdir"),
    (
      ["evaluate", "--workdir=x", "--questions=q", "--predictions=p.jsonl"],
      "is not a run's workdir",
    ),
    (["evaluate", "--workdir=x", "--texts=t"], "is not a run's workdir"),
    (["report", "--workdir=x", "y"], r"Unknown arguments ['y']"),
    (["build-index", "--workdir=x"], "is not a run's workdir"),
    (["index", "--workdir=x"], "Say which of list, verify, prune, got []"),
    (["index", "list", "--workdir=x"], "is not a run's workdir"),
    (
      ["edit-corpus", "--corpus=x", "--edits=e.jsonl", "--output=y"],
      "No corpus at x",
    ),
  ],
)
def test_bad_input_is_one_clear_line_and_exit_code_1(arguments, message):
  failed = realm(*arguments)
  assert failed.returncode == 1
  assert message in failed.stderr
  assert "Traceback" not in failed.stderr


def test_an_unknown_config_key_is_refused_by_name():
  failed = realm(
    "train", f"--config={TINY}:realm,x", "--workdir=x", "--config.nonsense=1"
  )
  assert failed.returncode != 0
  assert "nonsense" in failed.stderr
