# SPDX-License-Identifier: Apache-2.0
"""Reads what `torch.save` wrote, without torch and without running anything.

Such a file is a zip archive: a pickle that names tensors, and their numbers,
uncompressed, one entry a storage. A pickle may call whatever it can import:
here it can import nothing. The few names of torch that a dictionary of tensors
needs stand for objects of this file, and any other name is refused.
"""

from collections.abc import Mapping
import math
import os
import pickle
from typing import Any, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

_LARGEST_PICKLE = 2**26  # Bytes; a model of 100,000 tensors needs less.


class _Storage(NamedTuple):
  """The numbers behind one or more tensors: f[n], memory-mapped."""

  values: np.ndarray


class _StorageType(NamedTuple):
  """A tuple, so that no pickle can change it."""

  dtype: np.dtype


class _StateDict(dict[Any, Any]):
  """Stands for OrderedDict; the attributes that torch gives it are dropped."""

  def __setstate__(self, state: object) -> None:
    pass


class _RebuildTensor:
  """Stands for the function of torch that makes a tensor of a storage."""

  __slots__ = ()

  def __call__(
    self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
  ) -> np.ndarray:
    if not isinstance(storage, _Storage):
      raise pickle.UnpicklingError("a tensor without a storage")
    values, sizes = storage.values, (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(
      type(size) is int and size >= 0 for size in sizes
    ):
      raise pickle.UnpicklingError(f"a tensor of sizes {sizes}")
    last = offset + sum(
      (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
    )
    # `as_strided` would read whatever lies behind the storage.
    if math.prod(shape) and last >= len(values):
      raise pickle.UnpicklingError(
        f"a tensor that ends at {last} of a storage of {len(values)} numbers"
      )
    return np.lib.stride_tricks.as_strided(
      values[offset:],
      shape,
      [stride * values.itemsize for stride in strides],
      writeable=False,
    )


class _RebuildParameter:
  """Stands for the function that makes a parameter of a tensor."""

  __slots__ = ()

  def __call__(self, tensor: Any, *_: Any) -> Any:
    return tensor


_NAMES: Mapping[tuple[str, str], Any] = {
  ("collections", "OrderedDict"): _StateDict,
  ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
  ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
} | {
  ("torch", f"{name}Storage"): _StorageType(np.dtype(dtype))
  for name, dtype in {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Bool": np.bool_,
  }.items()
}


class _Unpickler(pickle.Unpickler):
  """Knows `_NAMES` and the archive's storages, and nothing else."""

  def __init__(self, archive: "_Archive") -> None:
    super().__init__(archive.open_pickle())
    self._archive = archive

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _NAMES:
      raise pickle.UnpicklingError(
        f"it asks for {module}.{name}, which no tensor needs"
      )
    return _NAMES[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    match pid:
      case ("storage", _StorageType() as kind, str() as key, _, int() as size):
        return self._archive.storage(key, kind.dtype, size)
    raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage")


class _Archive:
  """The zip file: one pickle, and storages beside it."""

  def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      raise ValueError(f"it has {len(pickles)} entries data.pkl, not one")
    self._path, self._zip, self._pickle = path, archive, pickles[0]
    self._root = pickles[0].removesuffix("data.pkl")
    order = f"{self._root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
      raise ValueError("its numbers are not little-endian")

  def open_pickle(self) -> Any:
    size = self._zip.getinfo(self._pickle).file_size
    if size > _LARGEST_PICKLE:
      raise ValueError(f"its pickle has {size} bytes, too many for a model's")
    return self._zip.open(self._pickle)

  def storage(self, key: str, dtype: np.dtype, size: int) -> _Storage:
    entry = self._zip.getinfo(f"{self._root}data/{key}")
    if entry.compress_type != zipfile.ZIP_STORED:
      raise pickle.UnpicklingError(
        f"the storage {entry.filename} is compressed"
      )
    if not 0 <= size * dtype.itemsize <= entry.file_size:
      raise pickle.UnpicklingError(
        f"the storage {entry.filename} has {entry.file_size} bytes, and {size} "
        f"numbers of type {dtype} are asked for"
      )
    if size == 0:  # Nothing can be mapped.
      return _Storage(np.empty(0, dtype))
    start = self._start(entry)
    return _Storage(np.memmap(self._path, dtype, "r", start, (size,)))

  def _start(self, entry: zipfile.ZipInfo) -> int:
    """Returns where an entry's bytes begin: after a header of its own."""
    with open(self._path, "rb") as file:
      file.seek(entry.header_offset)
      header = file.read(30)
    name, extra = (
      int.from_bytes(header[i : i + 2], "little") for i in (26, 28)
    )
    return entry.header_offset + len(header) + name + extra


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns the tensors of a file as read-only memory maps.

  Raises:
    ValueError: it is no zip archive (torch before 1.6 wrote none), holds
      anything but a dictionary of tensors, or is damaged.
    OSError: it cannot be read.
  """
  path = os.fspath(path)
  try:
    with zipfile.ZipFile(path) as archive:
      found = _Unpickler(_Archive(path, archive)).load()
  except zipfile.BadZipFile as error:
    raise ValueError(
      f"{path} is no file of torch 1.6 or later ({error}). Save the model "
      "again, best with `save_pretrained(folder, safe_serialization=True)`."
    ) from error
  except OSError:
    raise
  except Exception as error:  # A damaged pickle raises nearly anything.
    raise ValueError(f"{path} is refused: {error}.") from error
  wrong = [
    name
    for name, value in (found.items() if isinstance(found, dict) else ())
    if not (isinstance(name, str) and isinstance(value, np.ndarray))
  ]
  if not isinstance(found, dict) or wrong:
    raise ValueError(
      f"{path} is refused: it holds more than tensors by name: "
      f"{wrong[:3] or type(found).__name__}."
    )
  return dict(found)
