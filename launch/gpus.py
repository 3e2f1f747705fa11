# SPDX-License-Identifier: Apache-2.0
"""Which of a machine's GPUs embed, and which train."""

import os
import shutil
import subprocess

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# Beside a trainer that took three quarters of each, as JAX does at its start,
# a builder takes what it needs as it needs it.
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def shares(
  builder_gpus: int, builders: int
) -> tuple[dict[str, str], list[dict[str, str]]]:
  """Returns the environment of the trainer, and that of each builder.

  Args:
    builder_gpus: how many, the last ones, are the builders' alone; with 0 all
      processes use all.
    builders: how many there are.

  Raises:
    ValueError: there are fewer than that, or fewer than processes.
  """
  if not (builder_gpus and builders):
    return {}, [_SHARED] * builders
  gpus = _visible()
  if not builders <= builder_gpus < len(gpus):
    raise ValueError(
      f"--builder_gpus={builder_gpus} for --builders={builders} of "
      f"{len(gpus)} GPUs ({', '.join(gpus) or 'none'}): each builder needs "
      "one, and the trainer, too. With 0 they use all together."
    )
  trainer, theirs = gpus[:-builder_gpus], gpus[-builder_gpus:]
  return {_VISIBLE: ",".join(trainer)}, [
    {_VISIBLE: ",".join(theirs[number::builders])} for number in range(builders)
  ]


def _visible() -> list[str]:
  """Returns how CUDA would be told of the GPUs: indices, or UUIDs."""
  if (told := os.environ.get(_VISIBLE)) is not None:
    return [name.strip() for name in told.split(",") if name.strip()]
  if shutil.which("nvidia-smi") is None:
    return []
  listed = subprocess.run(
    ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
    capture_output=True,
    text=True,
    check=False,
  )
  return listed.stdout.split() if listed.returncode == 0 else []
