# SPDX-License-Identifier: Apache-2.0
"""A run whose workdir and data are in a store, with real processes."""

import json
import os
import signal

from etils import epath
import pytest

from realm_jax import checkpoints, files
from realm_jax.eval.report import write_report
from realm_jax.index import listing
from tests.integration.jobs import same_params, schedule, write_data
from tests.integration.test_resume import finish, launch, wait_for_step


@pytest.fixture
def folder(tmp_path, tiny_tokenizer, tiny_corpus):
  write_data(tmp_path, tiny_tokenizer, tiny_corpus)
  return tmp_path


@pytest.mark.slow
def test_a_killed_run_in_a_store_ends_as_one_in_a_directory(folder, url):
  data = f"{url}-data"  # Copied there with any tool.
  for name in files.sizes(folder):
    files.upload(folder / name, f"{data}/{name}")
  workdir = epath.Path(url)
  undisturbed = launch(folder, folder / "undisturbed")
  process = launch(data, url)
  # Past the swap of step 12, and past the last checkpoint, of step 8.
  wait_for_step(process, workdir, 14)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  finish(undisturbed)
  # Metrics come to the store late: it may have got beyond step 16, too.
  assert checkpoints.newest_step(url) in (8, 16)
  finish(launch(data, url))

  assert schedule(url) == schedule(folder / "undisturbed")
  assert same_params(url, folder / "undisturbed")
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  logged = [json.loads(line) for line in lines]
  assert [x["step"] for x in logged if "loss" in x] == list(range(1, 25))
  assert (workdir / checkpoints.TRAINING_DONE).read_text() == "24\n"
  listing.list_index(url)
  listing.verify_index(url)
  assert "REALM pre-training" in write_report(url).read_text()
  # Only what is of use is left.
  assert {path.name for path in files.entries(workdir)} >= {"index", "report"}
  assert not [
    name for name in files.sizes(workdir / "index") if "leases" in name
  ]
