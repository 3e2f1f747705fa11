# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.exchange.lookalike import OPEN_QA, do_import


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
  """The workdir of `OPEN_QA`."""
  workdir = tmp_path_factory.mktemp("imported") / "run"
  do_import(OPEN_QA, workdir=workdir)
  return workdir
