# SPDX-License-Identifier: Apache-2.0
"""Reading index versions: immutable directories, visible once complete.

    workdir/index/<version>/embeddings/00000-….npy …  f32, in row order
                           /retriever.safetensors     what embedded them
                           /scann-…/                  the searcher
                           /MANIFEST.json             written last: the commit
                 /readers/<version>/…                 leases of who has it open

A directory without a manifest is not there for readers. `drafts` and
`publish` write.
"""

import collections
from collections.abc import Callable, Iterable
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import threading
import weakref

from etils import epath
import numpy as np

from realm_jax import sharding
from realm_jax.config import RetrievalConfig, RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import damage
from realm_jax.index.device import DeviceIndex
from realm_jax.index.drafts import read_params
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.lease import Leases
from realm_jax.index.manifest import MANIFEST, Manifest, check_files
from realm_jax.index.scann_backend import ScannParameters, load_scann
from realm_jax.index.search import Index
from realm_jax.shapes import Params

# Beyond this, reading everything twice would delay an open by seconds: sizes
# are always checked, checksums up to here or on request.
CHECKSUM_BYTES = 2**30
# How often this process has each version open, by its readers' folder.
_uses: collections.Counter[pathlib.Path] = collections.Counter()
_reading_lock = threading.RLock()  # Finalisers run in the middle of anything.
_VERSION = re.compile(r"(\d{8,})-[0-9a-f]{8}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexVersion:
  """A published version, open for searching."""

  version: str
  step: int  # Of the checkpoint.
  manifest: Manifest
  index: Index
  embeddings: Embeddings  # Memory-mapped.
  retriever_params: Params  # NumPy arrays; its queries go with these passages.


def index_folder(workdir: epath.PathLike) -> pathlib.Path:
  """Returns the directory of all versions.

  Raises:
    ValueError: `workdir` is a URL; versions are memory-mapped files.
  """
  if "://" in os.fspath(workdir):
    raise ValueError(
      f"workdir={os.fspath(workdir)!r} is a URL. Index versions are "
      "memory-mapped: use a path, on a shared file system where several "
      "hosts train."
    )
  return pathlib.Path(workdir) / "index"


def version_name(step: int, corpus_fingerprint: str) -> str:
  """Names the version of a checkpoint and a corpus; sorts by step."""
  return f"{step:08d}-{corpus_fingerprint[:8]}"


def step_of(version: str) -> int:
  """Returns the checkpoint step in a version's name.

  Raises:
    ValueError: it is no version's name.
  """
  if not (match := _VERSION.fullmatch(version)):
    raise ValueError(
      f"{version!r} is no index version: those look like "
      f"{version_name(500, '0123abcd')!r} (step, corpus fingerprint)."
    )
  return int(match[1])


def list_versions(
  workdir: epath.PathLike, corpus: PassageCorpus | None = None
) -> list[str]:
  """Returns the published versions by step, of one corpus or of all."""
  return _list(workdir, corpus, published=True)


def list_drafts(workdir: epath.PathLike, corpus: PassageCorpus) -> list[str]:
  """Returns the versions of a corpus that are being made, by step."""
  return _list(workdir, corpus, published=False)


def _list(
  workdir: epath.PathLike, corpus: PassageCorpus | None, *, published: bool
) -> list[str]:
  folder = index_folder(workdir)
  if not folder.exists():
    return []
  names = [
    path.name
    for path in folder.iterdir()
    if _VERSION.fullmatch(path.name) and (path / MANIFEST).exists() == published
  ]
  if corpus is not None:
    names = of_corpus(names, corpus.fingerprint)
  return sorted(names, key=lambda name: (step_of(name), name))


def of_corpus(versions: Iterable[str], fingerprint: str) -> list[str]:
  """Returns the versions of one corpus, by their names."""
  return [name for name in versions if name.endswith(f"-{fingerprint[:8]}")]


def newest_version(workdir: epath.PathLike, corpus: PassageCorpus) -> str:
  """Returns the version of this corpus with the newest checkpoint.

  Raises:
    FileNotFoundError: there is none.
  """
  versions = list_versions(workdir, corpus)
  if not versions:
    others = list_versions(workdir)
    raise FileNotFoundError(
      f"{index_folder(workdir)} has no version for the corpus with "
      f"fingerprint {corpus.fingerprint[:8]} (others: {others}). Run `realm "
      f"build-index --workdir={os.fspath(workdir)} --corpus=<its directory>`."
    )
  return versions[-1]


def open_version(
  workdir: epath.PathLike,
  version: str,
  run: RunConfig,
  corpus: PassageCorpus,
) -> IndexVersion:
  """Opens a published version for searching.

  As long as the version is in use, a lease keeps it from being deleted.

  Raises:
    FileNotFoundError: it is not published, or was pruned.
    ValueError: it is of another corpus, tokenizer or D; the message has both
      values.
    VersionDamaged: its files are not what was published.
  """
  directory = index_folder(workdir) / version
  if not (directory / MANIFEST).exists():
    raise FileNotFoundError(
      f"{directory} is not a published index version. Published: "
      f"{list_versions(workdir)}."
    )
  with contextlib.ExitStack() as stack:
    # Before anything is read: what is half read must not be deleted either.
    release = _hold(readers_folder(workdir, version))
    stack.callback(release)
    with damage.reporting(directory):
      manifest = Manifest.read(directory)
      total = sum(file.num_bytes for file in manifest.files)
      check_files(directory, manifest.files, checksums=total <= CHECKSUM_BYTES)
    _check_belongs(manifest, run, corpus)
    opened = open_files(directory, manifest, run.retrieval)
    stack.pop_all()
  weakref.finalize(opened, release)
  return opened


def readers_folder(workdir: epath.PathLike, version: str) -> pathlib.Path:
  """Returns where a version's readers leave their leases."""
  return index_folder(workdir) / "readers" / version


def _hold(folder: pathlib.Path) -> Callable[[], None]:
  """Takes a lease; the process' last use of `folder` ends it."""
  leases = _reading()
  with _reading_lock:
    _uses[folder] += 1
    lease = leases.take(folder)

  def release() -> None:
    with _reading_lock:
      _uses[folder] -= 1
      if not _uses[folder]:
        leases.drop(lease)
        # Empty, unless another process reads it: then it stays.
        with contextlib.suppress(OSError):
          folder.rmdir()

  return release


@functools.cache
def _reading() -> Leases:
  leases = Leases()
  leases.start()
  return leases


def open_files(
  directory: pathlib.Path,
  manifest: Manifest,
  retrieval: RetrievalConfig | None = None,
) -> IndexVersion:
  """Opens a version, or a draft of one, as its manifest describes it.

  Args:
    directory: of the version.
    manifest: its own.
    retrieval: of a reader; its "device" back end searches any version.

  Raises:
    ValueError: the embeddings' shape is not the manifest's.
  """
  embeddings = open_embeddings(directory, manifest)
  return IndexVersion(
    version=manifest.version,
    step=manifest.step,
    manifest=manifest,
    index=_open_index(directory, manifest, embeddings, retrieval),
    embeddings=embeddings,
    retriever_params=read_params(directory),
  )


def verify_checksums(workdir: epath.PathLike, version: str) -> None:
  """Reads every file of a version.

  Raises:
    VersionDamaged: a file is not what was published.
  """
  directory = index_folder(workdir) / version
  with damage.reporting(directory):
    damage.check(directory)


def _check_belongs(
  manifest: Manifest, run: RunConfig, corpus: PassageCorpus
) -> None:
  expected = {
    "corpus_fingerprint": corpus.fingerprint,
    "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
    "num_passages": len(corpus),
    "dim": run.embedder.dim,
  }
  differing = [
    f"{name} is {getattr(manifest, name)!r} in the index, {value!r} in this run"
    for name, value in expected.items()
    if getattr(manifest, name) != value
  ]
  if differing:
    raise ValueError(
      f"Index version {manifest.version} cannot serve this run: "
      f"{'; '.join(differing)}. Build one for it with `realm build-index`."
    )


def open_embeddings(directory: pathlib.Path, manifest: Manifest) -> Embeddings:
  """Maps a version's vectors, or a draft's.

  Raises:
    ValueError: their shape is not the manifest's.
  """
  shards = [
    np.load(directory / shard, mmap_mode="r") for shard in manifest.shards
  ]
  embeddings = Embeddings(shards)
  shape = (manifest.num_passages, manifest.dim)
  if embeddings.shape != shape:
    raise ValueError(
      f"{directory} has embeddings of shape {embeddings.shape}, and its "
      f"manifest says {shape}. Delete it and build it again."
    )
  return embeddings


def _open_index(
  directory: pathlib.Path,
  manifest: Manifest,
  embeddings: Embeddings,
  retrieval: RetrievalConfig | None,
) -> Index:
  if retrieval is not None and retrieval.backend == "device":
    return DeviceIndex(
      embeddings,
      sharding.local_mesh(),
      retrieval.device_dtype,
      retrieval.approximate,
    )
  if manifest.backend == "exact":
    return ExactIndex(embeddings)
  parameters = ScannParameters(**manifest.scann)
  return load_scann(directory / manifest.searcher, parameters, embeddings)
