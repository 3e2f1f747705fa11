# SPDX-License-Identifier: Apache-2.0
"""Vectors that a published version has already.

Two versions whose embedder is the same, as after fine-tuning with the document
tower frozen, after a change to the corpus, or at the start of a run that goes
on from another's retriever, differ in few vectors or in none: those of passages
that both have are copied.
"""

from collections.abc import Callable
import logging

from etils import epath
from jaxtyping import Float32, Int
import numpy as np

from realm_jax.checksums import StoredFile
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
  workdir: epath.PathLike, corpus: PassageCorpus, embedder_hash: str
) -> KnownVectors | None:
  """Returns what the newest version of the same embedder knows, if any is."""
  for version in reversed(store.list_versions(workdir)):
    directory = store.index_folder(workdir) / version
    copy = HostCopy(VERSIONS, directory)
    try:
      with damage.reporting(directory):
        manifest = Manifest.read(directory)
      if manifest.embedder_hash != embedder_hash:
        continue
      with copy.in_use():
        with damage.reporting(directory):
          # What is copied must be what was published.
          copy.fetch(_needed(manifest), checksums=True)
        # What is mapped stays readable when its file is removed.
        embeddings = store.open_embeddings(copy.folder, manifest)
        hashes = np.load(copy.folder / PASSAGES_FILE)
    except (FileNotFoundError, damage.VersionDamaged) as error:
      # Pruned just now, or of no use.
      _log.info("Vectors of %s are not copied: %s", version, error)
      continue
    rows = unchanged_rows(hashes, corpus.passage_hashes)
    return KnownVectors(version, embeddings, rows)
  return None


def _needed(manifest: Manifest) -> list[StoredFile]:
  names = {*manifest.shards, PASSAGES_FILE}
  return [file for file in manifest.files if file.path in names]
