# SPDX-License-Identifier: Apache-2.0
"""BERT-large, whose state is larger than a small device."""

import dataclasses

import pytest

from experiments import pretraining
from realm_jax.config import MeshConfig
from realm_jax.plan.devices import parse_devices
from realm_jax.plan.estimate import Task, make_plan


@pytest.mark.slow
def test_bert_large_fits_where_replicated_it_does_not():
  devices = parse_devices("v5e:8")
  run = dataclasses.replace(
    pretraining.large(pretraining.REALM), batch_size=48, remat="layers"
  )
  shared_out = dataclasses.replace(run, mesh=MeshConfig(fsdp=8))
  replicated, sharded = (
    make_plan(Task(run=each, devices=devices, builders=devices))
    for each in (run, shared_out)
  )
  assert not replicated.fits
  assert sharded.fits
