# SPDX-License-Identifier: Apache-2.0
"""A run is the same on any shape of machine, and goes on from one to another.

    pytest -m slow -s tests/integration/test_shapes.py

trains on 1, 2 and 4 processes with 1, 2 and 4 devices each, and prints how far
losses and parameters are from those of one device.
"""

import contextlib
import os
import signal
import socket

import numpy as np
import pytest

from realm_jax import workdir as workdirs
from tests.integration import shapes_run
from tests.integration.jobs import schedule, write_data, write_questions
from tests.integration.processes import (
  assert_same_run,
  finish,
  losses,
  params_off,
  start,
  swaps,
  wait_for,
)
from tests.integration.shapes import layouts
from tests.integration.shapes_run import KINDS

pytestmark = pytest.mark.slow
SHAPES = [(n, m) for n in (1, 2, 4) for m in (1, 2, 4)]
SWAPS = [(0, 0), (6, 5), (11, 10), (16, 15)]


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tokenizer, tiny_corpus):
  root = tmp_path_factory.mktemp("shapes")
  write_data(root, tiny_tokenizer, tiny_corpus)
  write_questions(root, tiny_corpus)
  return root


@pytest.fixture
def started():
  """Processes that a test leaves behind are killed."""
  processes = []
  yield processes
  for process in processes:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def launch(data, workdir, kind, processes, devices, *flags):
  return start(
    workdir.with_suffix(".log"),
    ["launch.local"],
    f"--config={shapes_run.__file__}:{kind},{data}",
    f"--workdir={workdir}",
    f"--trainers={processes}",
    *flags,
    JAX_NUM_CPU_DEVICES=str(devices),
  )


@pytest.fixture(scope="module")
def on_one_device(data):
  """A run of each kind, with a builder beside it."""
  workdirs = {kind: data / kind for kind in KINDS}
  for kind, workdir in workdirs.items():
    finish(launch(data, workdir, kind, 1, 1), workdir)
    assert swaps(workdir) == SWAPS
  return workdirs


def start_group(data, processes, devices):
  """Starts a process of `shapes` for each, with one log."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
  return [
    start(
      data / f"{processes}x{devices}.log",
      ["tests.integration.shapes"],
      str(data),
      f"127.0.0.1:{port}" if processes > 1 else "",
      str(processes),
      str(process),
      JAX_NUM_CPU_DEVICES=str(devices),
    )
    for process in range(processes)
  ]


@pytest.mark.parametrize(("processes", "devices"), SHAPES[1:])
def test_losses_and_parameters_are_those_of_one_device(
  processes, devices, data, on_one_device, started, table
):
  shape = data / f"{processes}x{devices}"
  started += start_group(data, processes, devices)
  for process in started:
    finish(process, shape)
  for kind, wanted in on_one_device.items():
    for layout in layouts(processes * devices):
      workdir = shape / f"{kind}-{layout}"
      assert swaps(workdir) == SWAPS
      assert len(losses(workdir)) == 20
      off = np.abs(np.divide(losses(workdir), losses(wanted)) - 1).max()
      table[shape.name, layout, kind] = off, params_off(workdir, wanted)
      assert_same_run(workdir, wanted)


@pytest.fixture(scope="module")
def table():
  """(shape, layout, kind) -> (of losses, of parameters); printed at last."""
  cells = {}
  yield cells
  names = " | ".join(f"{kind}, {it}" for kind in KINDS for it in layouts(2))
  print(f"\n| processes x devices | {names} |\n|{'---|' * 7}")
  for shape in dict.fromkeys(shape for shape, *_ in cells):
    row = [cells[shape, it, kind] for kind in KINDS for it in layouts(2)]
    told = [f"{loss:.0e} / {params:.0e}" for loss, params in row]
    print(f"| {' | '.join([shape, *told])} |")


def stop(launcher, workdir, after):
  """Asks a run to stop, which will be before the swap after this step.

  The index that it takes is not there yet.
  """
  wait_for(lambda: len(losses(workdir)) >= after, launcher)
  launcher.terminate()
  finish(launcher, workdir, code=75)


def test_a_run_goes_on_from_shape_to_shape(data, on_one_device, started):
  workdir, kind = data / "chain", "per_mask"

  def leg(processes, devices, fsdp):
    flag = f"--config.mesh.fsdp={fsdp}"
    started.append(launch(data, workdir, kind, processes, devices, flag))
    return started[-1]

  def refused(message, devices, fsdp):
    finish(leg(1, devices, fsdp), workdir, code=1)
    assert message in workdir.with_suffix(".log").read_text()

  stop(leg(1, 1, fsdp=1), workdir, after=2)
  stop(leg(2, 2, fsdp=2), workdir, after=7)
  refused("16, which does not divide over 3 devices. Use 2 of them", 3, fsdp=1)
  refused("mesh.fsdp=3 does not cover 4 devices", 4, fsdp=3)
  assert workdirs.load(workdir).mesh.fsdp == 2
  stop(leg(4, 1, fsdp=1), workdir, after=12)
  assert len(losses(workdir)) <= 16
  finish(leg(1, 4, fsdp=4), workdir)
  assert swaps(workdir) == SWAPS
  assert schedule(workdir) == schedule(on_one_device[kind])
  assert_same_run(workdir, on_one_device[kind])
