# SPDX-License-Identifier: Apache-2.0
"""Shapes without data against those of the stages themselves."""

import dataclasses
import math

import jax
import pytest

from realm_jax.config import DprConfig
from realm_jax.plan.batches import batches_of, full_rows
from realm_jax.train.stages import open_stage


def kinds(batch):
  """Names, dtypes and numbers of axes."""
  return jax.tree.map(
    lambda leaf: (len(leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype)),
    batch,
  )


def num_elements(batch):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(batch))


@pytest.mark.parametrize(
  ("stage", "changes"),
  [
    ("ict", {}),
    ("dpr", {"dpr": DprConfig(negatives=2, search=10)}),
    ("mlm", {}),
    ("realm", {}),
    ("openqa", {}),
    ("openqa", {"retriever": "bm25"}),
    ("openqa", {"retriever": "none"}),
    ("openqa", {"train_documents": True}),
  ],
)
def test_full_rows_are_the_stage_s_batch_with_nothing_packed(
  make_run, stage, changes
):
  run = make_run(stage)
  if stage == "openqa":
    changes = {"openqa": dataclasses.replace(run.openqa, **changes)}
  run = dataclasses.replace(run, **changes)
  largest = list(open_stage(run).shapes())[-1]
  full = full_rows(run)
  assert kinds(full) == kinds(largest)
  # Lines are rounded up to places of eight, and their number to the devices.
  assert num_elements(full) > 0.9 * num_elements(largest)


def test_data_that_are_there_give_their_own_shapes(make_run):
  run = make_run("mlm")
  shapes = list(open_stage(run, num_devices=2).shapes())
  found = batches_of(run, 2, num_hosts=1)
  assert found.source == "the run's data"
  assert kinds(found.largest) == kinds(shapes[-1])
  assert found.largest["joint"]["ids"].shape == shapes[-1]["joint"]["ids"].shape
  assert 0.2 < found.typical < 1  # Most batches need fewer lines.
  # Several hosts do not ask each other for a smaller shape.
  assert batches_of(run, 2, num_hosts=2).typical == 1


def test_without_data_rows_are_full_and_it_says_so(make_run):
  run = make_run("mlm")
  data = dataclasses.replace(run.data, corpus="nowhere/corpus")
  found = batches_of(dataclasses.replace(run, data=data), 2, num_hosts=1)
  assert "nowhere/corpus is not there" in found.source
  assert found.typical == 1
