# SPDX-License-Identifier: Apache-2.0
"""Sizes and SHA-256 sums of files, as the manifests of folders list them."""

from collections.abc import Iterable
import dataclasses
import hashlib
import pathlib
from typing import Any

from etils import epath

from realm_jax import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFile:
  """A file in a folder."""

  path: str  # Relative to the folder.
  num_bytes: int
  sha256: str

  def __post_init__(self) -> None:
    path = pathlib.PurePosixPath(self.path)
    if path.is_absolute() or ".." in path.parts:
      # Manifests come from elsewhere, and copies are written by these names.
      raise ValueError(f"{self.path!r} is no path within a folder.")


def describe_file(
  directory: epath.PathLike, path: epath.PathLike
) -> StoredFile:
  """Measures a file in `directory`."""
  return StoredFile(
    path=epath.Path(path).relative_to(directory).as_posix(),
    num_bytes=files.size(path),
    sha256=sha256_of(path),
  )


def describe_folder(
  directory: pathlib.Path, folder: pathlib.Path
) -> tuple[StoredFile, ...]:
  """Measures all files below a folder in `directory`, by path."""
  return tuple(
    describe_file(directory, path)
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  )


def check_files(
  directory: epath.PathLike,
  stored: Iterable[StoredFile],
  *,
  checksums: bool,
  remedy: str,
) -> None:
  """Compares files with what is known of them.

  Raises:
    ValueError: a size, or (with `checksums`) a checksum, differs, or a file
      is gone; the message has both values, and ends with `remedy`.
  """
  for file in stored:
    path = epath.Path(directory) / file.path
    if damage := find_damage(path, file, checksums=checksums):
      raise ValueError(f"{path} is damaged: {damage}. {remedy}")


def find_damage(
  path: epath.PathLike, stored: StoredFile, *, checksums: bool
) -> str:
  """Says how a file differs from what is known of it; "" if it does not."""
  found: Any
  expected: Any
  try:
    found, expected = files.size(path), stored.num_bytes
  except FileNotFoundError:
    found, expected = "absent", stored.num_bytes
  if found == expected and checksums:
    found, expected = sha256_of(path), stored.sha256
  if found == expected:
    return ""
  return f"{found}, where the manifest says {expected}"


def sha256_of(path: epath.PathLike) -> str:
  """The SHA-256 of a file's bytes, in hexadecimal."""
  digest = hashlib.sha256()
  for part in files.read(path):
    digest.update(part)
  return digest.hexdigest()
