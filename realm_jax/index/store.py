# SPDX-License-Identifier: Apache-2.0
"""Reading index versions: immutable directories, visible once complete.

    workdir/index/<version>/embeddings/00000-….npy …  f32, in row order
                           /retriever.safetensors     what embedded them
                           /scann-…/                  the searcher
                           /MANIFEST.json             written last: the commit
                 /readers/<version>/…                 leases of who has it open

A directory without a manifest is not there for readers. `drafts` and
`publish` write. Where the workdir is a URL, readers work on
copies (`mirror`).
"""

from collections.abc import Iterable
import contextlib
import dataclasses
import pathlib
import re
from typing import NamedTuple
import weakref

from etils import epath
import numpy as np

from realm_jax import files, sharding
from realm_jax.config import RetrievalConfig, RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import damage, lease
from realm_jax.index.device import DeviceIndex
from realm_jax.index.drafts import read_params
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.index.scann_backend import ScannParameters, load_scann
from realm_jax.index.search import Index
from realm_jax.mirror import VERSIONS, HostCopy
from realm_jax.shapes import Params

# Beyond this, reading everything twice would delay an open by seconds: sizes
# are always checked, checksums up to here or on request.
CHECKSUM_BYTES = 2**30
REFUSED = ".refused.json"  # Ends the name of what is said of a version.
_VERSION = re.compile(r"(\d{8,})-[0-9a-f]{8}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexVersion:
  """A published version, open for searching."""

  version: str
  step: int  # Of the checkpoint.
  manifest: Manifest
  corpus: PassageCorpus  # Of the passages; rows are its rows.
  index: Index
  embeddings: Embeddings  # Memory-mapped.
  retriever_params: Params  # NumPy arrays; its queries go with these passages.


class Contents(NamedTuple):
  """What an index folder held at one moment: versions, each list by step."""

  published: list[str]
  drafts: list[str]  # Being made, or left behind.
  refused: list[str]  # They failed their checks.
  reported: list[str]  # A reader found them damaged.


def index_folder(workdir: epath.PathLike) -> epath.Path:
  """Returns the directory of all versions."""
  return epath.Path(workdir) / "index"


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
  published = look(workdir).published
  return of_corpus(published, corpus.fingerprint) if corpus else published


def look(workdir: epath.PathLike) -> Contents:
  """Returns the versions in a workdir's index folder, from one listing."""
  found = files.marked(index_folder(workdir), MANIFEST)
  return Contents(
    published=_versions(name for name in found if found[name]),
    drafts=_versions(name for name in found if not found[name]),
    refused=_versions(found, REFUSED),
    reported=_versions(found, damage.REPORT),
  )


def _versions(names: Iterable[str], suffix: str = "") -> list[str]:
  """Returns the versions that names with this suffix speak of, by step."""
  stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
  versions = [stem for stem in stems if _VERSION.fullmatch(stem)]
  return sorted(versions, key=lambda name: (step_of(name), name))


def of_corpus(versions: Iterable[str], fingerprint: str) -> list[str]:
  """Returns the versions of one corpus, by their names."""
  return [name for name in versions if name.endswith(f"-{fingerprint[:8]}")]


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
  copy = HostCopy(VERSIONS, directory)
  with contextlib.ExitStack() as stack:
    # Before anything is read: what is half read must not be deleted either.
    stack.enter_context(lease.reading(readers_folder(workdir, version)))
    stack.enter_context(copy.in_use())
    with damage.reporting(directory):
      manifest = Manifest.read(directory)
      total = sum(file.num_bytes for file in manifest.files)
      copy.fetch(manifest.files, checksums=total <= CHECKSUM_BYTES)
    _check_belongs(manifest, run, corpus)
    opened = open_files(copy.folder, manifest, corpus, run.retrieval)
    weakref.finalize(opened, stack.pop_all().close)
  return opened


def readers_folder(workdir: epath.PathLike, version: str) -> epath.Path:
  """Returns where a version's readers leave their leases."""
  return index_folder(workdir) / "readers" / version


def open_files(
  directory: epath.PathLike,
  manifest: Manifest,
  corpus: PassageCorpus,
  retrieval: RetrievalConfig | None = None,
) -> IndexVersion:
  """Opens a version, or a draft of one, as its manifest describes it.

  Args:
    directory: of the version, on this host.
    manifest: its own.
    corpus: that it is over.
    retrieval: of a reader; its "device" back end searches any version.

  Raises:
    ValueError: the embeddings' shape is not the manifest's.
  """
  directory = pathlib.Path(directory)
  embeddings = open_embeddings(directory, manifest)
  return IndexVersion(
    version=manifest.version,
    step=manifest.step,
    manifest=manifest,
    corpus=corpus,
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


def open_embeddings(
  directory: epath.PathLike, manifest: Manifest
) -> Embeddings:
  """Maps a version's vectors, or a draft's, that are on this host.

  Raises:
    ValueError: their shape is not the manifest's.
  """
  shards = [
    np.load(pathlib.Path(directory) / shard, mmap_mode="r")
    for shard in manifest.shards
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
