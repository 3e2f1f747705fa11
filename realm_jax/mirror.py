# SPDX-License-Identifier: Apache-2.0
"""This host's copies of what lies elsewhere.

    $REALM_CACHE/corpora/<name>-<hash of its place>/…     as it is there
                                               /.fetching a lock: who copies
                                              .lock       who uses it
                /versions/…, /files/…                     likewise

Arrays are memory-mapped, and searchers read files by name. So what lies in an
object store, or below $REALM_COPY (where a file system of the network is
mounted), is copied to this host's disk, once for all of its processes. All
else is used where it is.

A copy that was broken off is gone on with. A file gets its name when its
checksum is right; one that was copied before is used after its checksum was
computed anew. What no process uses goes when there is no room for more, and an
index version as soon as another is taken in use: each is superseded soon.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import itertools
import json
import logging
import os
import pathlib
import shutil

from etils import epath

from realm_jax import files
from realm_jax.checksums import (
  StoredFile,
  check_files,
  describe_file,
  find_damage,
)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a folder holds."""

  name: str
  remedy: str  # What to do about a damaged one.
  superseded: bool = False  # Another is used soon, and this one no more.


CORPORA = Kind("corpora", "Copy or prepare it again.")
VERSIONS = Kind(
  "versions", "`realm build-index` makes the version anew.", superseded=True
)
_FILES = Kind("files", "It changed while it was copied: try again.")


def is_copied(path: epath.PathLike) -> bool:
  """Whether this host works on a copy of what lies there."""
  if files.is_url(path):
    return True
  below = os.environ.get("REALM_COPY")
  if not below:
    return False
  real = pathlib.Path(os.path.realpath(path))
  return real.is_relative_to(os.path.realpath(below))


class HostCopy:
  """A folder that lies anywhere, as this host has it.

  Attributes:
    source: where it lies.
    folder: where its files are on this host: there, or in the copy.
    is_copy: whether the two differ.
  """

  def __init__(
    self, kind: Kind, source: epath.PathLike, part: str = ""
  ) -> None:
    """Copies nothing yet.

    Args:
      kind: of the folder.
      source: the folder.
      part: names what is copied of it; "" for all.
    """
    self._kind, self.source = kind, epath.Path(source)
    self.is_copy = is_copied(source)
    place = "/".join(filter(None, [files.absolute(source), part]))
    self.folder = (
      files.cached(kind.name, place) if self.is_copy else pathlib.Path(source)
    )

  @contextlib.contextmanager
  def in_use(self) -> Iterator[None]:
    """Keeps the copy, which may be a part of one or none yet."""
    if not self.is_copy:
      yield
      return
    with contextlib.ExitStack() as stack:
      # Whoever removes copies holds the first lock, and looks at the second.
      with _removing():
        lock = self.folder.with_name(f"{self.folder.name}.lock")
        stack.enter_context(_locked(lock, fcntl.LOCK_SH))
        if self._kind.superseded:
          _remove_unused(self._kind.name)
      self.folder.mkdir(exist_ok=True)
      yield

  def fetch(self, stored: Sequence[StoredFile], *, checksums: bool) -> None:
    """Sees to it that this host has files, undamaged.

    Args:
      stored: the files, of a folder that is in use.
      checksums: whether files that are used where they are are compared in
        full, or by their sizes alone; copies always are.

    Raises:
      FileNotFoundError: one is not there.
      ValueError: one is damaged there; the message has both values.
      OSError: there is no room for them on this host.
    """
    if not self.is_copy:
      remedy = self._kind.remedy
      check_files(self.source, stored, checksums=checksums, remedy=remedy)
    elif missing := self._not_intact(stored):
      with _locked(self.folder / ".fetching"):
        # Meanwhile another process may have fetched them.
        if missing := self._not_intact(missing):
          self._make_room(missing)
          for file in missing:
            self._fetch(file)

  def send(self, path: pathlib.Path) -> None:
    """Copies a file that was written to `folder` to where it belongs."""
    if self.is_copy:
      name = path.relative_to(self.folder).as_posix()
      files.upload(path, self.source / name)

  def drop(self) -> None:
    """Removes the copy, whoever uses it."""
    if self.is_copy:
      shutil.rmtree(self.folder, ignore_errors=True)

  def _not_intact(self, stored: Sequence[StoredFile]) -> list[StoredFile]:
    def damage(file: StoredFile) -> str:
      return find_damage(self.folder / file.path, file, checksums=True)

    # Hashing holds no lock: several cores do it.
    with concurrent.futures.ThreadPoolExecutor() as pool:
      return list(itertools.compress(stored, pool.map(damage, stored)))

  def _fetch(self, file: StoredFile) -> None:
    path = self.folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    # What a broken-off copy left may be of another file of this name.
    for _ in range(1 + partial.exists()):
      files.download(self.source / file.path, partial)
      damage = find_damage(partial, file, checksums=True)
      if not damage:
        partial.replace(path)
        return
      partial.unlink()
    raise ValueError(
      f"{self.source / file.path} is damaged: {damage}. {self._kind.remedy}"
    )

  def _make_room(self, missing: Sequence[StoredFile]) -> None:
    there = [_partial(self.folder / file.path) for file in missing]
    needed = sum(file.num_bytes for file in missing)
    needed -= sum(path.stat().st_size for path in there if path.exists())
    if needed > _free():
      with _removing():
        _remove_unused("*")
    if needed > (free := _free()):
      raise OSError(
        errno.ENOSPC,
        f"the copy of {self.source} takes {needed:,} more bytes, and "
        f"{files.cache()} has room for {free:,}: set REALM_CACHE to a folder "
        "on a larger disk",
      )
    _log.info(
      "Copying %s to %s: %s bytes", self.source, self.folder, f"{needed:,}"
    )


@contextlib.contextmanager
def local_file(path: epath.PathLike) -> Iterator[pathlib.Path]:
  """Yields where this host has a file: there, or in a copy.

  A file that is written anew is copied anew. What is mapped stays readable.

  Raises:
    FileNotFoundError: there is none.
    OSError: there is no room for it on this host.
    ValueError: it was written while it was copied.
  """
  if not is_copied(path):
    yield pathlib.Path(path)
    return
  path = epath.Path(path)
  part = f"{path.name}@{files.state(path)}"
  copy = HostCopy(_FILES, path.parent, part)
  with copy.in_use():
    # No manifest came with it: it is read twice, alike.
    note = copy.folder / ".stored.json"
    with _locked(copy.folder / ".describing"):
      if not note.exists():
        known = describe_file(path.parent, path)
        files.write_whole(note, json.dumps(dataclasses.asdict(known)))
    known = StoredFile(**json.loads(note.read_text()))
    try:
      copy.fetch([known], checksums=True)
    except ValueError:
      copy.drop()  # With the note, which may be what is wrong.
      raise
    yield copy.folder / known.path


def _partial(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.partial")


def _free() -> int:
  return shutil.disk_usage(files.cache()).free


def _removing() -> contextlib.AbstractContextManager[None]:
  return _locked(files.cache() / "removing.lock")


def _remove_unused(kind: str) -> None:
  for lock in files.cache().glob(f"{kind}/*.lock"):
    with (
      contextlib.suppress(BlockingIOError),
      _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB),
    ):
      shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
      lock.unlink()


@contextlib.contextmanager
def _locked(path: pathlib.Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
  """Holds a lock among this host's processes; it ends with the process."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    fcntl.flock(file, how)
    yield
