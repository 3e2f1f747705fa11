# SPDX-License-Identifier: Apache-2.0
"""The texts of ORQA's blocks, as Hugging Face's REALM keeps them.

`block_records.npy` is NumPy's form of an array of objects, which is a pickle
of byte strings: 8 GB for 13 M blocks. It is not unpickled. Its instructions
are read one after another, none of them is carried out, and of all of them
only those that hold a block are of interest; so nothing in the file can run,
and one block at a time is in memory.
"""

from collections.abc import Iterator
import os
import pickletools
from typing import BinaryIO

import numpy as np

from realm_jax.data.records import Document

_BLOCK = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
# What else a list of byte strings is made of.
_BETWEEN = {
  *("MARK", "APPEND", "APPENDS", "FRAME"),
  *("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"),
}
_AT_THE_END = {"TUPLE", "BUILD", "STOP"} | _BETWEEN


def read_block_records(path: str | os.PathLike[str]) -> Iterator[Document]:
  """Yields the blocks in their order; a block's uid is its number, from 0.

  Raises:
    ValueError: it is not such a file, is damaged, or holds anything but one
      row of byte strings in UTF-8.
    OSError: it cannot be read.
  """
  with open(path, "rb") as file:
    expected = _read_header(file, path)
    number = 0
    for number, block in enumerate(_byte_strings(file, path), start=1):
      where = f"{path}: record {number - 1}"
      yield Document(
        title="", text=_decode(block, where), uid=str(number - 1), origin=where
      )
  if number != expected:
    raise ValueError(
      f"{path} holds {number} records, where its header says {expected}."
    )


def count_block_records(path: str | os.PathLike[str]) -> int:
  """Returns how many blocks there are, from the header.

  Raises:
    ValueError: as `read_block_records` does.
  """
  with open(path, "rb") as file:
    return _read_header(file, path)


def _read_header(file: BinaryIO, path: str | os.PathLike[str]) -> int:
  try:
    version = np.lib.format.read_magic(file)
    read = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
  except (ValueError, KeyError, EOFError) as error:
    raise ValueError(f"{path} is not a file of NumPy: {error}") from error
  if len(shape) != 1 or dtype != np.dtype(object):
    raise ValueError(
      f"{path} holds an array of type {dtype} and shape {shape}, not one row "
      "of byte strings."
    )
  return shape[0]


def _byte_strings(
  file: BinaryIO, path: str | os.PathLike[str]
) -> Iterator[bytes]:
  try:
    instructions = (
      (code.name, value) for code, value, _ in pickletools.genops(file)
    )
    # First comes how the array is made; its elements are the one list.
    for name, _ in instructions:
      if name == "EMPTY_LIST":
        break
    for name, value in instructions:
      if name in _BLOCK and isinstance(value, bytes):
        yield value
      elif name not in _BETWEEN:
        break
    else:
      name = "nothing"
    rest = {name, *(name for name, _ in instructions)}
  except (ValueError, EOFError, AttributeError, NotImplementedError) as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  if not rest <= _AT_THE_END:
    raise ValueError(
      f"{path} holds something that is no byte string of its own: "
      f"{sorted(rest - _AT_THE_END)} in its pickle. Save the array anew, of "
      "copies."
    )


def _decode(text: bytes, where: str) -> str:
  try:
    return text.decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{where}: not UTF-8 text: {error}") from error
