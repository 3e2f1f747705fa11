# SPDX-License-Identifier: Apache-2.0
"""Records Hugging Face models, or checks what is recorded, for parity tests.

    make golden                                              checks
    .venv-golden/bin/python tools/golden/make_golden.py DIR  records

A case is a folder as `save_pretrained` writes it, with random weights, and

  golden.safetensors     inputs; outputs; outputs when dropout multiplies by
                         1 + rate, as `scaled.<name>`
  gradients.safetensors  of "loss", by the parameters' names; those of an input
                         as `input.<name>`
"""

import argparse
import pathlib
import sys
import tempfile

from cases import CASES, Case, Tensors, scaling_dropout
import open_qa
from safetensors.torch import load_file, save_file
import torch
from transformers import logging
from transformers.models.deprecated.realm.modeling_realm import (
  RealmReader,
  RealmScorer,
)

# Of recorded arrays, between machines. Weights and inputs are drawn, not
# computed: they are equal to the bit.
TOLERANCE = 1e-6
_OPEN_QA = "realm_open_qa"  # See `open_qa`; without gradients.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_RECORDED = ("golden.safetensors", "gradients.safetensors")


def record(folder: pathlib.Path, case: Case) -> None:
  """Writes one case."""
  outputs = case.run()
  outputs["loss"].backward()
  gradients = {
    name: parameter.grad
    for name, parameter in case.model.named_parameters()
    if parameter.grad is not None
  } | {
    f"input.{name}": value.grad
    for name, value in case.inputs.items()
    if value.grad is not None
  }
  with scaling_dropout(), torch.no_grad():
    scaled = {f"scaled.{name}": value for name, value in case.run().items()}
  # These two transformers can write as torch does only: there, one tensor may
  # have two names.
  shares = isinstance(case.model, RealmScorer | RealmReader)
  case.model.save_pretrained(folder, safe_serialization=not shares)
  (folder / "generation_config.json").unlink(missing_ok=True)
  _save(folder / "golden.safetensors", case.inputs | outputs | scaled)
  _save(folder / "gradients.safetensors", gradients)


def _save(path: pathlib.Path, tensors: Tensors) -> None:
  # Clones: safetensors refuses tensors that share memory.
  clones = {
    name: value.detach().clone().contiguous() for name, value in tensors.items()
  }
  save_file(clones, path)


def differences(made: pathlib.Path, committed: pathlib.Path) -> list[str]:
  """Returns what differs between two folders of cases, a line each."""
  found = []
  for name in (*CASES, _OPEN_QA):
    for file in (*_WEIGHTS, *_RECORDED):
      place = f"{name}/{file}"
      if not (made / place).exists():
        continue  # A case has one of the two files of weights.
      if not (committed / place).exists():
        found.append(f"{place}: not committed")
        continue
      ours, theirs = _load(made / place), _load(committed / place)
      if ours.keys() != theirs.keys():
        found.append(f"{place}: {sorted(ours.keys() ^ theirs.keys())}")
        continue
      found += [
        f"{place}: {key} differs by {error:.2g}"
        for key in ours
        if (error := _error(ours[key], theirs[key])) > TOLERANCE
        or (file in _WEIGHTS and error > 0)
      ]
  return found


def _load(path: pathlib.Path) -> Tensors:
  if path.suffix == ".bin":
    return torch.load(path, weights_only=True)
  return load_file(path)


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
  if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
    return float("inf")
  ours, theirs = ours.double(), theirs.double()
  scale = max(1.0, float(theirs.abs().max()))
  return float((ours - theirs).abs().max()) / scale


def main() -> int:
  """Records every case, or with --check compares with what is there."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("--check", action="store_true")
  args = parser.parse_args()
  logging.set_verbosity_error()  # Of transformers, about BERT's `generate`.
  with tempfile.TemporaryDirectory() as temporary:
    made = pathlib.Path(temporary) if args.check else args.folder
    for name, case in CASES.items():
      record(made / name, case())
    recorded = open_qa.record(made / _OPEN_QA)
    _save(made / _OPEN_QA / "golden.safetensors", recorded)
    if not args.check:
      return 0
    found = differences(made, args.folder)
  print(*found, sep="\n")
  print(f"{len(CASES) + 1} cases, {len(found)} differences from {args.folder}")
  return 1 if found else 0


if __name__ == "__main__":
  sys.exit(main())
