# SPDX-License-Identifier: Apache-2.0
"""Making versions visible, and keeping bad ones back.

The manifest is written last: until it stands, readers do not see a version.
No directory is renamed, as object stores cannot.
"""

import json
import os
import pathlib

from etils import epath

from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import damage, drafts
from realm_jax.index.manifest import MANIFEST, Manifest
from realm_jax.index.store import (
  index_folder,
  list_versions,
  of_corpus,
  step_of,
  version_name,
)

_REFUSED = ".refused.json"


def check_newest(
  workdir: epath.PathLike, corpus_fingerprint: str, step: int
) -> None:
  """Raises ValueError if a newer checkpoint's version is published.

  Readers take the newest, and must never go back.
  """
  versions = of_corpus(list_versions(workdir), corpus_fingerprint)
  version = version_name(step, corpus_fingerprint)
  if damage.is_reported(index_folder(workdir) / version):
    return  # It is made anew.
  if versions and step_of(versions[-1]) > step:
    raise ValueError(
      f"The index of checkpoint {step} comes too late: {versions[-1]} is "
      "published, and an older checkpoint's may not follow it."
    )


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
  damage.clear(directory)


def refuse(
  directory: pathlib.Path, reason: str, checks: dict[str, float]
) -> None:
  """Removes a draft that failed its checks, and keeps the evidence."""
  drafts.discard(directory)
  damage.clear(directory)
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
