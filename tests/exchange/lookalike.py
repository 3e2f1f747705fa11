# SPDX-License-Identifier: Apache-2.0
"""A small `google/realm-orqa-nq-openqa`, as transformers wrote it."""

from realm_jax.config import RunConfig
from realm_jax.exchange import import_run
from realm_jax.exchange.sources import read_source
from tests.models.parity import ROOT

OPEN_QA = ROOT / "realm_open_qa"


def do_import(*folders, workdir, **options) -> RunConfig:
  """Runs `realm import`."""
  sources = [read_source(str(folder)) for folder in folders]
  return import_run.import_run(sources, str(workdir), **options)
