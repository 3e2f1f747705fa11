# SPDX-License-Identifier: Apache-2.0
"""This host's copies of versions that lie in an object store.

    $REALM_CACHE/versions/<version>-<hash of its URL>/…   as in the store
                /readers/<version>-<hash>/…               leases: who uses it

Vectors are memory-mapped, and searchers read files by name. So a process opens
a copy, which all processes of the host share; only the first of them fetches
it. A file that was fetched before is used after its checksum was computed
anew. What nobody on the host uses goes when another version is taken in use.

A version that lies in a directory is used where it is.
"""

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil

from etils import epath

from realm_jax import files
from realm_jax.index import lease
from realm_jax.index.lease import LeaseObserver
from realm_jax.index.manifest import (
  StoredFile,
  check_files,
  damage_error,
  find_damage,
)


def folder(directory: epath.PathLike) -> pathlib.Path:
  """Returns where this host has a version's files: there, or in its copy."""
  if not files.is_url(directory):
    return pathlib.Path(directory)
  return files.cached("versions", directory)


@contextlib.contextmanager
def in_use(directory: epath.PathLike) -> Iterator[None]:
  """Keeps the copy of a version; removes copies that nobody uses."""
  if not files.is_url(directory):
    yield
    return
  with lease.reading(files.cached("readers", directory)):
    _remove_unused()
    yield


def fetch(
  directory: epath.PathLike, stored: Sequence[StoredFile], *, checksums: bool
) -> None:
  """Sees to it that this host has a version's files, undamaged.

  Args:
    directory: of the version, which must be in use.
    stored: the files.
    checksums: whether a directory's files are compared in full, or by their
      sizes alone; copies always are.

  Raises:
    FileNotFoundError: the store does not have one.
    ValueError: one is damaged there; the message has both values.
  """
  if not files.is_url(directory):
    check_files(directory, stored, checksums=checksums)
  elif missing := _not_intact(directory, stored):
    with _locked("fetching"):
      # Meanwhile another process may have fetched them.
      for file in _not_intact(directory, missing):
        _fetch(epath.Path(directory), file)


def send(directory: epath.PathLike, path: pathlib.Path) -> None:
  """Copies a file that was written to `folder(directory)` to the store."""
  if files.is_url(directory):
    name = path.relative_to(folder(directory)).as_posix()
    files.upload(path, epath.Path(directory) / name)


def _fetch(directory: epath.Path, file: StoredFile) -> None:
  path = folder(directory) / file.path
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.new_file(path) as own:
    files.download(directory / file.path, own)
    if damage := find_damage(own, file, checksums=True):
      raise damage_error(directory, file, damage)


def _not_intact(
  directory: epath.PathLike, stored: Sequence[StoredFile]
) -> list[StoredFile]:
  copy = folder(directory)
  return [
    file
    for file in stored
    if find_damage(copy / file.path, file, checksums=True)
  ]


def _remove_unused() -> None:
  # Whoever takes a version in use does so before this lock, and looks for its
  # files after it: they are not removed in between.
  with _locked("removing"):
    for copy in files.entries(files.cache() / "versions"):
      readers = files.cache() / "readers" / copy.name
      _observer().clear_dead(readers)
      if not _observer().live(readers):
        shutil.rmtree(copy)
        with contextlib.suppress(OSError):  # Taken in use just now.
          os.rmdir(readers)


@functools.cache
def _observer() -> LeaseObserver:
  return LeaseObserver()


@contextlib.contextmanager
def _locked(action: str) -> Iterator[None]:
  """Holds a lock among this host's processes; it ends with the process."""
  files.cache().mkdir(parents=True, exist_ok=True)
  with (files.cache() / f"{action}.lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
