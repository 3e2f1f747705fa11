# SPDX-License-Identifier: Apache-2.0
"""Writing index versions: a draft, its manifest last, and old ones deleted.

A builder may be killed at any point: until the manifest stands, readers do
not see the directory, and the next builder clears it away. No directory is
renamed, as object stores cannot.
"""

from collections.abc import Collection
import json
import os
import pathlib
import shutil

from etils import epath
from flax import traverse_util
from jaxtyping import Float32
import numpy as np
import safetensors.numpy

from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.exact import ExactIndex
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.index.scann_backend import ScannIndex
from realm_jax.index.store import (
  PARAMS_FILE,
  SCANN_FOLDER,
  index_folder,
  list_versions,
  of_corpus,
  step_of,
)
from realm_jax.shapes import Params

SHARD_ROWS = 2**20
_REFUSED = ".refused.json"


def check_newest(
  workdir: epath.PathLike, corpus_fingerprint: str, step: int
) -> None:
  """Raises ValueError if a newer checkpoint's version is published.

  Readers take the newest, and must never go back.
  """
  versions = of_corpus(list_versions(workdir), corpus_fingerprint)
  if versions and step_of(versions[-1]) > step:
    raise ValueError(
      f"The index of checkpoint {step} comes too late: {versions[-1]} is "
      "published, and an older checkpoint's may not follow it."
    )


def begin_draft(workdir: epath.PathLike, version: str) -> pathlib.Path:
  """Returns a version's empty directory, cleared of what a crash left.

  Raises:
    FileExistsError: the version is published, and so it is final.
  """
  directory = index_folder(workdir) / version
  if (directory / MANIFEST).exists():
    raise FileExistsError(f"{directory} is published, and versions are final.")
  discard(directory)
  directory.mkdir(parents=True)
  return directory


def write_draft(
  directory: pathlib.Path,
  embs: Float32[np.ndarray, "N D"],
  retriever: Params,
  index: ScannIndex | ExactIndex,
) -> tuple[str, ...]:
  """Writes all but the manifest; returns the embedding files in row order."""
  folder = directory / "embeddings"
  folder.mkdir()
  shards = []
  for number, start in enumerate(range(0, len(embs), SHARD_ROWS)):
    path = folder / f"{number:05d}.npy"
    np.save(path, embs[start : start + SHARD_ROWS])
    shards.append(path.relative_to(directory).as_posix())
  flat = traverse_util.flatten_dict(dict(retriever), sep="/")
  safetensors.numpy.save_file(
    {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()},
    directory / PARAMS_FILE,
  )
  if isinstance(index, ScannIndex):
    index.save(directory / SCANN_FOLDER)
  return tuple(shards)


def publish(directory: pathlib.Path, manifest: Manifest) -> None:
  """Makes a complete draft visible.

  Raises:
    ValueError: see `check_newest`.
  """
  workdir = directory.parent.parent
  check_newest(workdir, manifest.corpus_fingerprint, manifest.step)
  # The manifest is whole before it gets its name.
  draft = directory / f".{MANIFEST}"
  draft.write_text(manifest.dumps(), encoding="utf-8")
  os.replace(draft, directory / MANIFEST)
  _refusal_path(workdir, manifest.version).unlink(missing_ok=True)


def discard(directory: pathlib.Path) -> None:
  """Removes a version or a draft; the manifest first, so none sees half."""
  (directory / MANIFEST).unlink(missing_ok=True)
  if directory.exists():
    shutil.rmtree(directory)


def refuse(
  directory: pathlib.Path, reason: str, checks: dict[str, float]
) -> None:
  """Removes a draft that failed its checks, and keeps the evidence."""
  discard(directory)
  text = json.dumps({"reason": reason, "checks": checks}, indent=2)
  path = _refusal_path(directory.parent.parent, directory.name)
  path.write_text(text, encoding="utf-8")


def refusal(workdir: epath.PathLike, version: str) -> str | None:
  """Returns why a version failed its checks, or None if it did not."""
  path = _refusal_path(workdir, version)
  if not path.exists():
    return None
  return json.loads(path.read_text(encoding="utf-8"))["reason"]


def list_refused(workdir: epath.PathLike, corpus: PassageCorpus) -> list[str]:
  """Returns the versions of a corpus that failed their checks."""
  paths = index_folder(workdir).glob(f"*{_REFUSED}")
  names = (path.name.removesuffix(_REFUSED) for path in paths)
  return of_corpus(names, corpus.fingerprint)


def _refusal_path(workdir: epath.PathLike, version: str) -> pathlib.Path:
  return index_folder(workdir) / f"{version}{_REFUSED}"


def prune(
  workdir: epath.PathLike,
  corpus: PassageCorpus,
  keep: int,
  needed: Collection[str],
) -> list[str]:
  """Deletes a corpus' versions but the newest `keep` and those `needed`.

  Drafts that a newer version has overtaken go, too: none may be published any
  more. A process that has a version open keeps its pages, as files that are
  mapped outlive their names.

  Returns:
    What was deleted.
  """
  published = list_versions(workdir, corpus)
  doomed = [name for name in published[:-keep] if name not in needed]
  for path in index_folder(workdir).iterdir():
    if (
      path.is_dir()
      and of_corpus([path.name], corpus.fingerprint)
      and path.name not in published
      and step_of(path.name) < step_of(published[-1])
    ):
      doomed.append(path.name)
  for version in doomed:
    discard(index_folder(workdir) / version)
  return doomed
