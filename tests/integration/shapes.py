# SPDX-License-Identifier: Apache-2.0
"""One process of a group that trains runs of every kind, one after another.

    python -m tests.integration.shapes <folder> <coordinator> <count> <process>

Each kind is trained in every layout, into `<folder>/<shape>/<kind>-<layout>`,
with the index versions of the run `<folder>/<kind>`.
"""

import dataclasses
import pathlib
import shutil
import sys

import jax

from realm_jax import config, hosts
from realm_jax import workdir as workdirs
from realm_jax.cluster import Group
from realm_jax.config import MeshConfig
from realm_jax.train import loop
from tests.integration.shapes_run import KINDS, get_config

_WAIT_SECONDS = 600.0


def layouts(num_devices: int) -> dict[str, MeshConfig]:
  """Data parallel, and FSDP: over half of the devices, so along both axes."""
  return {
    "data": MeshConfig(),
    "fsdp": MeshConfig(fsdp=max(2, num_devices // 2)),
  }


def main(folder: str, coordinator: str, count: str, process: str) -> None:
  group = Group(
    coordinator=coordinator,
    num_processes=int(count),
    process_id=int(process),
  )
  with hosts.joined(group, _WAIT_SECONDS):
    shape = f"{jax.process_count()}x{jax.local_device_count()}"
    for layout, mesh in layouts(jax.device_count()).items():
      for kind in KINDS:
        _train(pathlib.Path(folder), kind, mesh, f"{shape}/{kind}-{layout}")


def _train(
  folder: pathlib.Path, kind: str, mesh: MeshConfig, name: str
) -> None:
  run = config.parse(get_config(f"{kind},{folder}"))
  run = dataclasses.replace(run, mesh=mesh)
  if hosts.is_lead():
    workdirs.claim(folder / name, run)
    versions = shutil.ignore_patterns("readers")
    shutil.copytree(
      folder / kind / "index", folder / name / "index", ignore=versions
    )
  hosts.check_same("config", config.dumps(run))  # Now the index is there.
  assert loop.train(run, str(folder / name))


if __name__ == "__main__":
  main(*sys.argv[1:])
