# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from realm_jax.checksums import StoredFile
from realm_jax.index.manifest import MANIFEST, Manifest, library_versions


def _manifest(**changes):
  fields = dict(
    version="00000500-0123abcd",
    step=500,
    checkpoint_unix_secs=1.0,
    corpus_fingerprint="0123abcd",
    tokenizer_fingerprint="fe",
    embedder_hash="cd",
    num_passages=3,
    dim=2,
    backend="scann",
    scann={"reorder": 200},
    searcher="scann-1",
    shards=("embeddings/00000.npy",),
    files=(StoredFile(path="a/b", num_bytes=5, sha256="00"),),
    libraries=library_versions(),
  )
  return Manifest(**(fields | changes))


@pytest.fixture
def directory(tmp_path):
  path = tmp_path / _manifest().version
  path.mkdir()
  return path


def test_a_manifest_survives_its_file(directory):
  manifest = dataclasses.replace(_manifest(), checks={"recall_at_10": 0.5})
  (directory / MANIFEST).write_text(manifest.dumps())
  assert Manifest.read(directory) == manifest


@pytest.mark.parametrize(
  "damage",
  [
    lambda raw: raw.pop("step"),
    lambda raw: raw.update(surplus=1),
    lambda raw: raw.update(format=99),
    lambda raw: raw["files"][0].pop("sha256"),
    lambda raw: raw["files"][0].update(path="../a"),
    lambda raw: raw.update(version="00000500-ffffffff"),
  ],
)
def test_a_malformed_manifest_is_refused_by_name(directory, damage):
  raw = json.loads(_manifest().dumps())
  damage(raw)
  (directory / MANIFEST).write_text(json.dumps(raw))
  with pytest.raises(ValueError, match=f"{directory}.*build-index"):
    Manifest.read(directory)


def test_half_a_manifest_is_refused(directory):
  (directory / MANIFEST).write_text(_manifest().dumps()[:50])
  with pytest.raises(ValueError, match="not a manifest"):
    Manifest.read(directory)
