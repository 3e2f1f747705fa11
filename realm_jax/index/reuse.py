# SPDX-License-Identifier: Apache-2.0
"""Vectors that a published version has already.

Two versions whose embedder is the same, as after fine-tuning with the document
tower frozen, after a change to the corpus, or at the start of a run that goes
on from another's retriever, differ in few vectors or in none: those of passages
that both have are copied.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import logging
import pathlib
from typing import NamedTuple

from etils import epath
from jaxtyping import Float32, Int
import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_edits import unchanged_rows
from realm_jax.index import damage, store
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.manifest import Manifest
from realm_jax.mirror import VERSIONS, HostCopy

_log = logging.getLogger(__name__)
PASSAGES_FILE = "passages.npy"  # u64[N]: a hash of what was embedded.


class KnownVectors:
  """What one version knows of a corpus."""

  def __init__(
    self, version: str, embeddings: Embeddings, rows: Int[np.ndarray, "N"]
  ) -> None:
    """Wraps a version's vectors.

    Args:
      version: its name.
      embeddings: of its passages.
      rows: for each passage of the corpus its row there, or -1.
    """
    self.version = version
    self._embeddings, self._rows = embeddings, rows

  def complete(
    self,
    ids: Int[np.ndarray, "n"],
    embed: Callable[[Int[np.ndarray, "_"]], Float32[np.ndarray, "_ D"]],
  ) -> Float32[np.ndarray, "n D"]:
    """Returns the vectors of passages, of which `embed` makes the unknown."""
    rows = self._rows[ids]
    unknown = rows < 0
    embs = np.empty((len(ids), self._embeddings.shape[1]), np.float32)
    embs[~unknown] = self._embeddings[rows[~unknown]]
    if unknown.any():
      embs[unknown] = embed(ids[unknown])
    return embs

  @property
  def num_known(self) -> int:
    """How many passages of the corpus it has."""
    return int((self._rows >= 0).sum())


def known_vectors(
  workdirs: Iterable[epath.PathLike],
  corpus: PassageCorpus,
  embedder_hash: str,
) -> KnownVectors | None:
  """Returns what the version knows that knows most, or None if none does.

  A run may have versions over several corpora that share passages.

  Args:
    workdirs: whose versions are looked at; of two that know as much the newer
      of the first workdir is taken.
    corpus: whose vectors are asked for.
    embedder_hash: of the document tower; others' versions know nothing.
  """
  found = [
    shared
    for workdir in workdirs
    for version in reversed(store.list_versions(workdir))
    if (
      shared := _shared(
        store.index_folder(workdir) / version, corpus, embedder_hash
      )
    )
  ]
  for shared in sorted(found, key=lambda one: one.num_known, reverse=True):
    with _tolerating_damage(shared.directory):
      embeddings = _opened(shared)
      return KnownVectors(shared.directory.name, embeddings, shared.rows)
  return None


class _Shared(NamedTuple):
  """A version, and for each passage of a corpus its row there, or -1."""

  directory: epath.Path
  manifest: Manifest
  rows: Int[np.ndarray, "N"]

  @property
  def num_known(self) -> int:
    return int((self.rows >= 0).sum())


def _shared(
  directory: epath.Path, corpus: PassageCorpus, embedder_hash: str
) -> _Shared | None:
  """Returns what a version has in common with a corpus, if it has anything."""
  with _tolerating_damage(directory):
    with damage.reporting(directory):
      manifest = Manifest.read(directory)
    if manifest.embedder_hash == embedder_hash:
      with _fetched(directory, manifest, [PASSAGES_FILE]) as folder:
        hashes = np.load(folder / PASSAGES_FILE)
      rows = unchanged_rows(hashes, corpus.passage_hashes)
      if (rows >= 0).any():
        return _Shared(directory, manifest, rows)
  return None


def _opened(shared: _Shared) -> Embeddings:
  manifest = shared.manifest
  with _fetched(shared.directory, manifest, manifest.shards) as folder:
    # What is mapped stays readable when its file is removed.
    return store.open_embeddings(folder, manifest)


@contextlib.contextmanager
def _fetched(
  directory: epath.Path, manifest: Manifest, names: Iterable[str]
) -> Iterator[pathlib.Path]:
  """Yields the folder where this host has files of a version, undamaged."""
  copy = HostCopy(VERSIONS, directory)
  wanted = set(names)
  with copy.in_use():
    with damage.reporting(directory):
      # What is copied must be what was published.
      copy.fetch(
        [file for file in manifest.files if file.path in wanted],
        checksums=True,
      )
    yield copy.folder


@contextlib.contextmanager
def _tolerating_damage(directory: epath.Path) -> Iterator[None]:
  """Goes on without a version that was pruned just now, or is of no use."""
  try:
    yield
  except (FileNotFoundError, damage.VersionDamaged) as error:
    _log.info("Vectors of %s are not copied: %s", directory.name, error)
