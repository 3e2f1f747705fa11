# SPDX-License-Identifier: Apache-2.0
"""What a published index version says about itself, as MANIFEST.json."""

from collections.abc import Sequence
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any, Literal

from etils import epath
from flax import traverse_util
import numpy as np

from realm_jax import files
from realm_jax.config import RunConfig
from realm_jax.models.embedder import tower
from realm_jax.shapes import Params

MANIFEST = "MANIFEST.json"
_FORMAT = 2
_LIBRARIES = ("realm-jax", "jax", "numpy", "scann")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFile:
  """A file of a version, relative to its directory."""

  path: str
  num_bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """One version: where it comes from, what it holds, how it was checked."""

  version: str
  step: int  # Of the checkpoint.
  checkpoint_unix_secs: float  # When the checkpoint was committed.
  corpus_fingerprint: str
  tokenizer_fingerprint: str
  embedder_hash: str  # Of what made the vectors; see `embedder_hash`.
  num_passages: int  # N
  dim: int  # D
  dtype: Literal["float32"] = "float32"
  backend: Literal["scann", "exact"]
  scann: dict[str, int]  # ScannParameters; empty for "exact".
  searcher: str  # ScaNN's folder; empty for "exact".
  shards: tuple[str, ...]  # Embedding files, in row order.
  files: tuple[StoredFile, ...]  # All files but the manifest and leases.
  libraries: dict[str, str]
  # Filled in when the version has been verified.
  checks: dict[str, float] = dataclasses.field(default_factory=dict)
  phase_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  published_unix_secs: float = 0.0
  format: int = _FORMAT

  def dumps(self) -> str:
    """As JSON."""
    return json.dumps(dataclasses.asdict(self), indent=2)

  @classmethod
  def read(cls, directory: epath.PathLike) -> "Manifest":
    """Reads a version's manifest.

    Raises:
      FileNotFoundError: there is none, so the version is not published.
      ValueError: it is malformed, of another format or of another version.
    """
    directory = epath.Path(directory)
    path = directory / MANIFEST
    try:
      raw = json.loads(path.read_text())
      if raw["format"] != _FORMAT:
        raise ValueError(
          f"format {raw['format']}, and this program reads {_FORMAT}"
        )
      if raw["version"] != directory.name:
        raise ValueError(f"it is of version {raw['version']}")
      raw["files"] = tuple(StoredFile(**file) for file in raw["files"])
      raw["shards"] = tuple(raw["shards"])
      return cls(**raw)
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{path} is not a manifest that can be read ({error!r}). `realm "
        "build-index` makes the version anew."
      ) from error


def describe_file(
  directory: epath.PathLike, path: epath.PathLike
) -> StoredFile:
  """Measures a file of the version in `directory`."""
  return StoredFile(
    path=epath.Path(path).relative_to(directory).as_posix(),
    num_bytes=files.size(path),
    sha256=sha256_of(path),
  )


def describe_folder(
  directory: pathlib.Path, folder: pathlib.Path
) -> tuple[StoredFile, ...]:
  """Measures all files in a folder of the version in `directory`, by path."""
  return tuple(
    describe_file(directory, path)
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  )


def embedder_hash(run: RunConfig, retriever: Params) -> str:
  """Returns a hash of all that a passage's vector depends on but its text.

  The document tower's parameters and architecture, and the length that
  passages are cut to. Versions that agree in it agree in the vectors of the
  passages that they share: fine-tuning, for one, leaves it as it is.
  """
  digest = hashlib.sha256()
  shape = {
    "embedder": dataclasses.asdict(run.embedder),
    "length": run.lengths.passage,
  }
  digest.update(json.dumps(shape, sort_keys=True).encode())
  flat = traverse_util.flatten_dict(dict(tower(retriever, "document")), sep="/")
  for name, leaf in sorted(flat.items()):
    values = np.ascontiguousarray(leaf)
    digest.update(f"{name} {values.dtype} {values.shape}".encode())
    digest.update(values.tobytes())
  return digest.hexdigest()


def check_files(
  directory: epath.PathLike, stored: Sequence[StoredFile], *, checksums: bool
) -> None:
  """Compares files with what a manifest says of them.

  Raises:
    ValueError: a size, or (with `checksums`) a checksum, differs, or a file
      is gone; the message has both values.
  """
  for file in stored:
    path = epath.Path(directory) / file.path
    if damage := find_damage(path, file, checksums=checksums):
      raise damage_error(directory, file, damage)


def damage_error(
  directory: epath.PathLike, stored: StoredFile, damage: str
) -> ValueError:
  """Returns the error to raise for a file of the version in `directory`."""
  return ValueError(
    f"{epath.Path(directory) / stored.path} is damaged: {damage}. `realm "
    "build-index` makes the version anew."
  )


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
  with epath.Path(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
  """The versions that an index may depend on."""
  return {name: importlib.metadata.version(name) for name in _LIBRARIES}
