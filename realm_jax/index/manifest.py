# SPDX-License-Identifier: Apache-2.0
"""What a published index version says about itself, as MANIFEST.json."""

import dataclasses
import hashlib
import importlib.metadata
import json
from typing import Literal

from etils import epath
from flax import traverse_util
import numpy as np

from realm_jax.checksums import StoredFile
from realm_jax.config import RunConfig
from realm_jax.models.embedder import tower
from realm_jax.shapes import Params

MANIFEST = "MANIFEST.json"
_FORMAT = 2
_LIBRARIES = ("realm-jax", "jax", "numpy", "scann")


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


def library_versions() -> dict[str, str]:
  """The versions that an index may depend on."""
  return {name: importlib.metadata.version(name) for name in _LIBRARIES}
