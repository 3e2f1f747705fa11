# SPDX-License-Identifier: Apache-2.0
"""An index version in the making, to which several builders add.

    index/<version>/draft.json                     what is made, of what
                   /retriever.safetensors          what embeds the passages
                   /embeddings/00003-<holder>.npy  vectors of some passages
                   /shards/00003-<holder>.json     its checksum: the commit
                   /leases/00003/<holder>.json     who is at work on it

A builder may be killed at any point. What it committed stays, for vectors of
the same parameters are the same whoever makes them; what it did not commit
is not looked at. Every builder writes under names of its own, so that two
that do the same work do not disturb each other.

Large files are written on this host, and go to a store from there.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil

from etils import epath
from flax import traverse_util
from jaxtyping import Float32
import numpy as np
import safetensors.numpy

from realm_jax import files
from realm_jax.checksums import StoredFile, describe_file, describe_folder
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.mirror import VERSIONS, HostCopy
from realm_jax.shapes import Params

PARAMS_FILE = "retriever.safetensors"
_PLAN = "draft.json"
_FINISH = "finish"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftPlan:
  """What all builders of a version must agree on."""

  step: int  # Of the checkpoint.
  checkpoint_unix_secs: float
  embedder_hash: str  # See `manifest.embedder_hash`.
  num_passages: int  # N
  shard_passages: int  # Of each shard but the last.

  @property
  def num_shards(self) -> int:
    """How many shards there are."""
    return -(-self.num_passages // self.shard_passages)

  def rows(self, shard: int) -> np.ndarray:
    """Returns the passages of a shard, i64[n]."""
    start = shard * self.shard_passages
    return np.arange(start, min(start + self.shard_passages, self.num_passages))


class Draft:
  """One version's directory, until its manifest is written."""

  def __init__(
    self,
    directory: epath.Path,
    plan: DraftPlan,
    leases: Leases,
    observer: LeaseObserver,
  ) -> None:
    """See `begin`."""
    self.directory, self.plan = directory, plan
    self.copy = HostCopy(VERSIONS, directory)
    self.local = self.copy.folder  # Its files on this host.
    self._leases, self._observer = leases, observer
    # Commits do not change: each is read once.
    self._commits: dict[str, StoredFile] = {}

  @property
  def published(self) -> bool:
    """Whether a builder has finished the version."""
    return (self.directory / MANIFEST).exists()

  def missing(self) -> list[int]:
    """Returns the shards that nobody has committed, until it is published."""
    if self.published:
      return []
    there = self._committed()
    return [i for i in range(self.plan.num_shards) if i not in there]

  @contextlib.contextmanager
  def claim(self) -> Iterator[int | None]:
    """Yields a missing shard that no living builder is at work on, or None."""
    missing = self.missing()
    # Each builder begins at a place of its own, so that they seldom meet.
    first = int(self._leases.holder, 16) % max(len(missing), 1)
    for shard in missing[first:] + missing[:first]:
      folder = self._lease_folder(f"{shard:05d}")
      if self._others(folder):
        continue
      lease = self._leases.take(folder)
      try:
        # Of two that claim at the same moment, one goes elsewhere.
        if min([self._leases.holder, *self._others(folder)]) == lease.stem:
          yield shard
          return
      finally:
        self._leases.drop(lease)
    yield None

  @contextlib.contextmanager
  def claim_finish(self) -> Iterator[bool]:
    """Yields whether it is on this builder to finish the version."""
    folder = self._lease_folder(_FINISH)
    if self._others(folder):
      yield False
      return
    lease = self._leases.take(folder)
    try:
      # Of two that claim at the same moment none does: readers must not see
      # one manifest replaced by the other. They meet again at other moments.
      yield not self._others(folder)
    finally:
      self._leases.drop(lease)

  def add(self, shard: int, embs: Float32[np.ndarray, "n D"]) -> None:
    """Writes a shard's vectors, then commits them."""
    name = f"{shard:05d}-{self._leases.holder}"
    path = self.local / "embeddings" / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, embs)
    self.copy.send(path)
    commit = self.directory / "shards" / f"{name}.json"
    commit.parent.mkdir(parents=True, exist_ok=True)
    stored = describe_file(self.local, path)
    files.write_whole(commit, json.dumps(dataclasses.asdict(stored)))

  def add_array(self, name: str, values: np.ndarray) -> StoredFile:
    """Writes a file that is the same whichever builder does."""
    path = self.local / name
    with files.new_file(path) as own, own.open("wb") as file:
      np.save(file, values)
    self.copy.send(path)
    return describe_file(self.local, path)

  def add_folder(self, folder: pathlib.Path) -> tuple[StoredFile, ...]:
    """Takes in files that were written to a `local_folder`."""
    stored = describe_folder(self.local, folder)
    for file in stored:
      self.copy.send(self.local / file.path)
    return stored

  def shards(self) -> tuple[StoredFile, ...]:
    """Returns one committed file for each shard, in row order."""
    committed = self._committed()
    return tuple(committed[i] for i in range(self.plan.num_shards))

  def drop_damaged(self) -> list[str]:
    """Takes back commits whose bytes have changed; says of which files.

    All others are on this host afterwards.
    """
    damaged = []
    for stored in self.shards():
      try:
        self.copy.fetch([stored], checksums=True)
      except (ValueError, FileNotFoundError):
        damaged.append(stored.path)
        path = self.directory / stored.path
        commit = self.directory / "shards" / f"{path.stem}.json"
        del self._commits[commit.name]
        commit.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return damaged

  def local_folder(self, name: str) -> pathlib.Path:
    """Returns a folder's path on this host that no other builder uses."""
    return self.local / f"{name}-{self._leases.holder}"

  def drop_folder(self, folder: pathlib.Path) -> None:
    """Removes a `local_folder`, and what `add_folder` took in of it."""
    shutil.rmtree(folder, ignore_errors=True)
    discard(self.directory / folder.name)

  def abandon(self) -> None:
    """Frees the space, unless another builder is at work."""
    if not is_live(self.directory, self._observer, but=self._leases.holder):
      discard(self.directory)

  def _committed(self) -> dict[int, StoredFile]:
    found: dict[int, StoredFile] = {}
    sizes = files.sizes(self.directory / "embeddings")
    for path in files.entries(self.directory / "shards"):
      stored = self._read_commit(path)
      if stored and sizes.get(path.stem + ".npy") == stored.num_bytes:
        found.setdefault(int(path.name.split("-")[0]), stored)
    return found

  def _read_commit(self, path: epath.Path) -> StoredFile | None:
    if path.name not in self._commits:
      try:
        self._commits[path.name] = StoredFile(**json.loads(path.read_text()))
      except (ValueError, TypeError, FileNotFoundError):
        return None  # Half written, or taken back just now.
    return self._commits[path.name]

  def _lease_folder(self, name: str) -> epath.Path:
    return self.directory / "leases" / name

  def _others(self, folder: epath.Path) -> list[str]:
    return self._observer.live(folder, but=self._leases.holder)


def begin(
  directory: epath.PathLike,
  plan: DraftPlan,
  retriever: Params,
  leases: Leases,
  observer: LeaseObserver,
) -> Draft:
  """Begins a version, or goes on with what is there of the same plan.

  Raises:
    FileExistsError: the version is published, and so it is final.
  """
  directory = epath.Path(directory)
  if (directory / MANIFEST).exists():
    raise FileExistsError(f"{directory} is published, and versions are final.")
  there = read_plan(directory)
  if there not in (None, plan):
    discard(directory)  # Of other parameters.
  if there != plan:
    _write_plan(directory, plan, retriever)
  return Draft(directory, plan, leases, observer)


def _write_plan(
  directory: epath.Path, plan: DraftPlan, retriever: Params
) -> None:
  """Writes what every builder of the version writes alike."""
  directory.mkdir(parents=True, exist_ok=True)
  flat = traverse_util.flatten_dict(dict(retriever), sep="/")
  params = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
  # Whole before it gets its name: another may be about to read it.
  files.write_whole(directory / PARAMS_FILE, safetensors.numpy.save(params))
  files.write_whole(directory / _PLAN, json.dumps(dataclasses.asdict(plan)))


def read_plan(directory: epath.PathLike) -> DraftPlan | None:
  """Returns a draft's plan, or None where there is no (whole) one."""
  try:
    text = (epath.Path(directory) / _PLAN).read_text()
    return DraftPlan(**json.loads(text))
  except (FileNotFoundError, ValueError, TypeError):
    return None


def read_params(directory: epath.PathLike) -> Params:
  """Returns the retriever of a version or of a draft, as NumPy arrays."""
  content = (epath.Path(directory) / PARAMS_FILE).read_bytes()
  return traverse_util.unflatten_dict(safetensors.numpy.load(content), sep="/")


def is_live(
  directory: epath.PathLike, observer: LeaseObserver, *, but: str = ""
) -> bool:
  """Whether a living builder, `but` one, is at work on the draft."""
  folders = files.entries(epath.Path(directory) / "leases")
  return any(observer.live(folder, but=but) for folder in folders)


def tidy(directory: epath.PathLike, observer: LeaseObserver) -> None:
  """Removes what building left in a published version.

  Nothing while a living builder is at work there, if only since it has not
  seen yet that the version is published.
  """
  directory = epath.Path(directory)
  if is_live(directory, observer):
    return
  try:
    manifest = Manifest.read(directory)
  except (FileNotFoundError, ValueError):
    return  # Pruned just now, or damaged: for others to find.
  keep = {MANIFEST, *(file.path for file in manifest.files)}
  for name in files.sizes(directory):
    if name not in keep:
      (directory / name).unlink(missing_ok=True)
  # A store has no folders, and nothing is found here.
  for top, _, _ in os.walk(directory, topdown=False):
    with contextlib.suppress(OSError):  # Not empty: it is of use.
      os.rmdir(top)


def discard(directory: epath.PathLike) -> None:
  """Removes a version or a draft; the manifest first, so none sees half."""
  directory = epath.Path(directory)
  (directory / MANIFEST).unlink(missing_ok=True)
  while directory.exists():
    try:
      directory.rmtree(missing_ok=True)
    except OSError as error:
      # Another builder removes it, too, or renews a lease in it.
      if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
        raise
  HostCopy(VERSIONS, directory).drop()
