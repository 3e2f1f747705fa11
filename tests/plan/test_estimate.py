# SPDX-License-Identifier: Apache-2.0
"""Whole plans: what fits, what would, and the page."""

import dataclasses
import io
import json

import pytest
import rich.console

from realm_jax.config import OptimizerConfig
from realm_jax.plan import compiled, estimate, report, suggest, timing
from realm_jax.plan.batches import Batches
from realm_jax.plan.compiled import EmbeddingCost, StepCost
from realm_jax.plan.devices import parse_devices
from realm_jax.plan.estimate import Task, make_plan

GB = 1e9


def fake_cost(run, data, fsdp, **_):
  """A state that fsdp divides, and activations of the rows of a part.

  Of these a half is left with remat="dots", and a fifth with "layers".
  """
  rows = run.batch_size / run.optimizer.accumulate_steps / (data * fsdp)
  state = 20 * GB / fsdp
  kept = {"none": 1.0, "dots": 0.5, "layers": 0.2}[run.remat]
  return StepCost(
    params=state,
    moments=2 * state,
    gradients=state,
    batch=1e6,
    activations=kept * rows * 10 * GB,
    flops=1e12 * rows * run.optimizer.accumulate_steps,
    product_bytes=1e9,
    moved={("all-reduce", "both"): 20 * GB},
    batches=Batches({}, 1.0, "made up"),
  )


@pytest.fixture
def task(make_run, monkeypatch):
  monkeypatch.setattr(compiled, "step_cost", fake_cost)
  monkeypatch.setattr(
    compiled, "embedding_cost", lambda run: EmbeddingCost(1e9, 1e6)
  )
  run = make_run("realm", batch_size=16)
  return Task(
    run=run, devices=parse_devices("h100:8"), builders=parse_devices("h100:8")
  )


def page(plan, found=()):
  console = rich.console.Console(file=io.StringIO(), width=100)
  report.show(plan, console)
  if not plan.fits:
    report.show_refusal(plan, found, console)
  return console.file.getvalue()


def test_what_does_not_fit_is_said_with_what_would(task):
  plan = make_plan(task)
  assert not plan.fits
  assert plan.device_memory == pytest.approx(100 * GB, rel=1e-3)
  assert plan.device_limit == 60 * GB
  found = suggest.suggestions(plan)
  # Parts, candidates and batches leave the state as it is: 80 GB.
  assert [each.flags for each in found] == [
    "--config.mesh.data=-1 --config.mesh.fsdp=4"
  ]
  assert all(each.plan.fits for each in found)
  said = page(plan, found)
  assert "does not fit" in said
  assert "A device needs 100 GB and has 60.0 GB." in said
  assert "--config.mesh.fsdp=4: 40.0 GB" in said


def test_a_smaller_state_leaves_room_for_other_changes(task, monkeypatch):
  def smaller(*args, **_):
    cost = fake_cost(*args)
    return dataclasses.replace(cost, params=0.0, moments=0.0, gradients=45 * GB)

  monkeypatch.setattr(compiled, "step_cost", smaller)
  found = suggest.suggestions(make_plan(task))
  assert [each.flags for each in found] == [
    "--config.optimizer.accumulate_steps=2",
    "--config.remat=dots",
    "--config.batch_size=8",
  ]


def test_layers_are_computed_again_where_more_has_to_go(task, monkeypatch):
  def tight(*args, **_):
    cost = fake_cost(*args)
    return dataclasses.replace(cost, params=0.0, moments=0.0, gradients=55 * GB)

  monkeypatch.setattr(compiled, "step_cost", tight)
  for before in ("none", "dots"):
    run = dataclasses.replace(task.run, remat=before)
    found = suggest.suggestions(make_plan(dataclasses.replace(task, run=run)))
    assert "--config.remat=layers" in [each.flags for each in found]


def test_what_no_change_does_alone_two_may_do(task, monkeypatch):
  def larger(*args, **_):
    cost = fake_cost(*args)
    return dataclasses.replace(cost, activations=3 * cost.activations)

  monkeypatch.setattr(compiled, "step_cost", larger)
  found = suggest.suggestions(make_plan(task))  # 80 GB of state, and 60.
  assert [each.flags for each in found] == [
    "--config.mesh.data=-1 --config.mesh.fsdp=8 "
    "--config.optimizer.accumulate_steps=2",
    "--config.mesh.data=-1 --config.mesh.fsdp=8 --config.remat=dots",
    "--config.mesh.data=-1 --config.mesh.fsdp=8 --config.batch_size=8",
  ]


def test_a_batch_that_does_not_divide_is_refused_before_anything(task):
  parts = OptimizerConfig(accumulate_steps=4)
  run = dataclasses.replace(task.run, optimizer=parts)
  with pytest.raises(ValueError, match="multiple of 32"):
    make_plan(dataclasses.replace(task, run=run))


def test_reducing_takes_twice_the_gradients_over_the_ring(task):
  (sent,) = make_plan(task).sent
  assert sent.num_bytes == 2 * 7 / 8 * 20 * GB
  assert sent.rate == 450e9


def test_the_longest_decides_a_step(task):
  step = make_plan(task).step
  assert step.compute == 2e12 / (494.7e12 * 0.4)  # float32.
  assert step.network == pytest.approx(35e9 / 450e9)
  assert (step.limit, step.longest) == (timing.NETWORK, step.network)


def test_staleness_is_the_refresh_in_steps(task):
  refresh_every = dataclasses.replace(
    task.run.refresh, policy="async", every_steps=2
  )
  run = dataclasses.replace(task.run, refresh=refresh_every)
  plan = make_plan(dataclasses.replace(task, run=run, num_passages=10**7))
  refresh = plan.refresh
  share = plan.corpus.tokens / run.lengths.passage  # Shorter than the longest.
  assert refresh.seconds == pytest.approx(
    share * 10**7 * 1e9 / (8 * 494.7e12 * 0.4)
  )
  assert refresh.steps == -(-refresh.seconds // plan.step.longest)
  assert refresh.oldest == 2 * refresh.steps  # Slower than every 2 steps.


def test_lockstep_waits_for_what_the_lag_does_not_cover(task):
  lockstep = dataclasses.replace(task.run.refresh, policy="lockstep")
  run = dataclasses.replace(task.run, refresh=lockstep)
  plan = make_plan(dataclasses.replace(task, run=run, num_passages=10**7))
  covered = lockstep.lag_steps * plan.step.longest
  assert plan.refresh.steps == lockstep.lag_steps
  assert plan.refresh.waits == pytest.approx(plan.refresh.seconds - covered)
  assert "the trainer waits" in page(plan)


def test_on_cpus_devices_and_index_share_the_host_s_memory(task):
  on_cpus = dataclasses.replace(task, devices=parse_devices("cpu:2"))
  plan = make_plan(on_cpus)
  assert plan.device_limit == (32 * GB - plan.host.searchers) / 2


def test_figures_are_json_with_every_part(task):
  plan = make_plan(task)
  figures = json.loads(json.dumps(report.figures(plan)))
  assert figures["fits"] is False
  assert figures["device_memory"]["total"] == plan.device_memory
  assert figures["mesh"] == {"data": 8, "fsdp": 1}
  assert figures["parameters"] == plan.num_params


def test_devices_are_checked_against_the_mesh(task):
  mesh = dataclasses.replace(task.run.mesh, data=3)
  run = dataclasses.replace(task.run, mesh=mesh)
  with pytest.raises(ValueError, match="does not cover 8 devices"):
    estimate.make_plan(dataclasses.replace(task, run=run))


@pytest.mark.parametrize(
  ("value", "said"),
  [
    (0.0, "0.00 B"),
    (999.4, "999 B"),
    (1234.0, "1.23 kB"),
    (5.678e10, "56.8 GB"),
  ],
)
def test_amounts_have_three_digits(value, said):
  assert report.amount(value, "B") == said
