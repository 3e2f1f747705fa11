# SPDX-License-Identifier: Apache-2.0
"""What a published index version says about itself, as MANIFEST.json."""

from collections.abc import Sequence
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any, Literal

MANIFEST = "MANIFEST.json"
_FORMAT = 1
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
  num_passages: int  # N
  dim: int  # D
  dtype: Literal["float32"] = "float32"
  backend: Literal["scann", "exact"]
  scann: dict[str, int]  # ScannParameters; empty for "exact".
  shards: tuple[str, ...]  # Embedding files, in row order.
  files: tuple[StoredFile, ...]  # All files but the manifest.
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
  def read(cls, directory: pathlib.Path) -> "Manifest":
    """Reads a version's manifest.

    Raises:
      FileNotFoundError: there is none, so the version is not published.
      ValueError: it is malformed, or of another format.
    """
    path = directory / MANIFEST
    try:
      raw = json.loads(path.read_text(encoding="utf-8"))
      if raw["format"] != _FORMAT:
        raise ValueError(
          f"format {raw['format']}, and this program reads {_FORMAT}"
        )
      raw["files"] = tuple(StoredFile(**file) for file in raw["files"])
      raw["shards"] = tuple(raw["shards"])
      return cls(**raw)
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{path} is not a manifest that can be read ({error!r}). Delete "
        f"{directory} and build it again with `realm build-index`."
      ) from error


def describe_files(directory: pathlib.Path) -> tuple[StoredFile, ...]:
  """Lists all files below a directory, by path, with sizes and checksums."""
  return tuple(
    StoredFile(
      path=path.relative_to(directory).as_posix(),
      num_bytes=path.stat().st_size,
      sha256=sha256_of(path),
    )
    for path in sorted(directory.rglob("*"))
    if path.is_file()
  )


def check_files(
  directory: pathlib.Path, files: Sequence[StoredFile], *, checksums: bool
) -> None:
  """Compares files with what a manifest says of them.

  Raises:
    ValueError: a size, or (with `checksums`) a checksum, differs, or a file
      is gone; the message has both values.
  """
  for file in files:
    path = directory / file.path
    if not path.exists():
      found: Any = "absent"
      expected: Any = file.num_bytes
    elif (found := path.stat().st_size) != file.num_bytes:
      expected = file.num_bytes
    elif checksums and (found := sha256_of(path)) != file.sha256:
      expected = file.sha256
    else:
      continue
    raise ValueError(
      f"{path} is damaged: {found}, where the manifest says {expected}. "
      f"Delete {directory} and build it again with `realm build-index`."
    )


def sha256_of(path: pathlib.Path) -> str:
  """The SHA-256 of a file's bytes, in hexadecimal."""
  with path.open("rb", buffering=0) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
  """The versions that an index may depend on."""
  return {name: importlib.metadata.version(name) for name in _LIBRARIES}
