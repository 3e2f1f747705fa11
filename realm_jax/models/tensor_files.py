# SPDX-License-Identifier: Apache-2.0
"""The weights of a Hugging Face folder, read tensor by tensor.

Either `model.safetensors` or, of torch, `pytorch_model.bin`; or several files
of one kind, with `….index.json` to say which tensor is in which.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import re

import huggingface_hub
import numpy as np
import safetensors

from realm_jax.models.torch_files import read_torch_file

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
# Of a model that has both, the first is fetched.
_WEIGHTS = (
  re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"),
  re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?"),
)


class SafeTensor:
  """A tensor of a safetensors file; what is sliced is read, no more."""

  def __init__(self, path: pathlib.Path, name: str) -> None:
    """Names it; see `open_tensors`."""
    self._path, self._name = path, name
    with _opened(path) as file:
      self.shape = tuple(file.get_slice(name).get_shape())

  def __getitem__(self, rows: slice) -> np.ndarray:
    with _opened(self._path) as file:
      return file.get_slice(self._name)[rows]

  def __array__(
    self, dtype: np.dtype | None = None, copy: bool | None = None
  ) -> np.ndarray:
    with _opened(self._path) as file:
      return np.asarray(file.get_tensor(self._name), dtype)


Tensor = np.ndarray | SafeTensor


def _opened(path: pathlib.Path) -> safetensors.safe_open:
  return safetensors.safe_open(path, framework="numpy")


def find_folder(source: str, also: Sequence[str] = ()) -> pathlib.Path:
  """Returns the folder of a model, fetched if `source` is a name on the hub.

  Args:
    source: a folder, or the name of a model on the Hugging Face hub.
    also: patterns of the files that are wanted beside config and weights.

  Raises:
    ValueError: it is neither.
  """
  folder = pathlib.Path(source)
  if folder.is_dir():
    return folder
  try:
    names = huggingface_hub.list_repo_files(source)
    weights = next((w for w in _WEIGHTS if any(map(w.fullmatch, names))), None)
    wanted = [name for name in names if weights and weights.fullmatch(name)]
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        source, allow_patterns=["config.json", *wanted, *also]
      )
    )
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{source!r} is neither a folder nor a model that the Hugging Face hub "
      f"gives: {error}"
    ) from error


def open_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
  """Returns every tensor of a folder by its name, none of them read yet.

  Both kinds of tensor have a `shape`, give rows by slices, and become arrays
  by `np.asarray`.

  Raises:
    ValueError: the folder has no weights, or they cannot be read; names the
      file.
  """
  found: dict[str, Tensor] = {}
  for path in _files(folder):
    found |= _read(path)
  return found


def _read(path: pathlib.Path) -> Mapping[str, Tensor]:
  if path.suffix != ".safetensors":
    return read_torch_file(path)
  try:
    with _opened(path) as file:
      names = list(file.keys())
    return {name: SafeTensor(path, name) for name in names}
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(f"{path} is not readable: {error}") from error


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  for name in (SAFETENSORS, TORCH):
    if (folder / name).exists():
      return [folder / name]
    index = folder / f"{name}.index.json"
    if index.exists():
      return _indexed(index)
  raise ValueError(
    f"{folder} has no weights: neither {SAFETENSORS} nor {TORCH}, nor an index "
    "of several such files."
  )


def _indexed(index: pathlib.Path) -> list[pathlib.Path]:
  try:
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{index} is no index of weights: {error!r}") from error
  for name in names:
    if pathlib.PurePath(name).name != name:
      raise ValueError(f"{index} names {name!r}, which is not beside it.")
    if not (index.parent / name).exists():
      raise ValueError(f"{index} names {name!r}, which is not there.")
  return [index.parent / name for name in names]
