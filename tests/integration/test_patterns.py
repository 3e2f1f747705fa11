# SPDX-License-Identifier: Apache-2.0
"""Questions whose answers are patterns (CuratedTREC), from file to figures."""

import gzip
import json
import re
import subprocess
import sys

import pytest

from tests.integration.jobs import CONFIG, PATIENCE_SECONDS, ROOT, write_data

# As ORQA compiles them.
_FLAGS = re.IGNORECASE | re.UNICODE | re.MULTILINE


def _realm(name, *flags):
  done = subprocess.run(
    [sys.executable, "-m", "realm_jax.cli", name, *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=PATIENCE_SECONDS,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  folder = tmp_path_factory.mktemp("patterns")
  write_data(folder, tiny_tokenizer, tiny_corpus)
  with gzip.open(folder / "questions.jsonl.gz", "wt") as file:
    for passage in tiny_corpus.passages(range(40)):
      answer = passage.text.split()[5].strip(".")
      line = {
        "question": f"What is the capital of {passage.title}?",
        "answers_regex": [f"{answer[:3]}\\w+|{answer.upper()}", "nowhere"],
      }
      file.write(json.dumps(line) + "\n")
  return folder


def test_a_reader_learns_from_patterns_and_is_scored_by_both_rules(
  data, tmp_path
):
  workdir = f"--workdir={tmp_path / 'run'}"
  questions = data / "questions.jsonl.gz"
  _realm(
    "train",
    f"--config={CONFIG}:openqa,{data}",
    workdir,
    f"--config.data.train={questions}",
    "--config.openqa.retriever=bm25",
  )
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  losses = [
    found["loss"] for found in map(json.loads, lines) if "loss" in found
  ]
  assert losses[-1] < losses[0]

  predictions = tmp_path / "answers.jsonl.gz"
  said = _realm(
    "evaluate",
    workdir,
    f"--questions={questions}",
    f"--predictions={predictions}",
  )
  figures = json.loads(said.splitlines()[-1])
  assert figures["num_examples"] == 40 and "f1" not in figures
  assert figures["reader_oracle"] > 0.9  # The question has the passage's title.
  with gzip.open(predictions, "rt") as file:
    found = [json.loads(line) for line in file]
  for rule, name in ((re.match, "exact_match"), (re.search, "regex_search")):
    right = [
      any(
        rule(p, line["answers"][0]["text"], _FLAGS) for p in line["references"]
      )
      for line in found
    ]
    assert [line[name] for line in found] == right
    assert figures[name] == pytest.approx(sum(right) / 40)
  assert figures["regex_search"] >= figures["exact_match"]
