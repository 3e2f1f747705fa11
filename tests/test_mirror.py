# SPDX-License-Identifier: Apache-2.0
"""Copies of what lies in a store, or on a file system of the network."""

import dataclasses
import json
import subprocess
import sys
import time

from etils import epath
import numpy as np
import pytest

from realm_jax import files
from realm_jax.checksums import StoredFile, describe_folder
from realm_jax.mirror import (
  CORPORA,
  VERSIONS,
  HostCopy,
  is_copied,
  local_file,
)

SIZES = {"a.bin": 300_000, "deep/b.bin": 70_000, "empty": 0}


def lay(folder, tmp_path, sizes=SIZES, seed=0):
  """Writes files of random bytes; returns what is known of them."""
  content = np.random.default_rng(seed)
  own = tmp_path / f"source-{seed}"
  for name, size in sizes.items():
    (own / name).parent.mkdir(parents=True, exist_ok=True)
    # Zero at the end: the emulator takes a newline there for its own.
    (own / name).write_bytes(content.bytes(size)[:-1] + bytes(size > 0))
    files.upload(own / name, epath.Path(folder) / name)
  return describe_folder(own, own)


def fetch(folder, stored, kind=CORPORA):
  """Copies a folder in this process; returns the copy's path."""
  copy = HostCopy(kind, folder)
  with copy.in_use():
    copy.fetch(stored, checksums=True)
  return copy.folder


def same(left, right):
  """Whether two folders hold the same files, but for hidden ones."""
  names = [n for n in files.sizes(right) if "/." not in f"/{n}"]
  return names and all(
    (epath.Path(left) / name).read_bytes()
    == (epath.Path(right) / name).read_bytes()
    for name in names
  )


@pytest.fixture
def downloads(monkeypatch):
  """The files that this process copies, and the bytes that were there."""
  found = []

  def noted(source, path, download=files.download):
    there = path.stat().st_size if path.exists() else 0
    found.append((source.name, there))
    download(source, path)

  monkeypatch.setattr(files, "download", noted)
  return found


def test_what_lies_on_this_host_is_used_where_it_is(nfs, tmp_path):
  assert not is_copied(tmp_path / "own")
  assert HostCopy(CORPORA, tmp_path / "own").folder == tmp_path / "own"
  assert is_copied(nfs / "corpus")
  assert is_copied("s3://bucket/corpus")


def test_a_folder_is_copied_once_and_missing_files_again(
  place, tmp_path, downloads
):
  stored = lay(place / "corpus", tmp_path)
  copy = fetch(place / "corpus", stored)
  assert same(copy, tmp_path / "source-0")
  assert len(downloads) == 3
  (copy / "deep/b.bin").unlink()
  fetch(place / "corpus", stored)
  assert downloads[3:] == [("b.bin", 0)]


def test_a_flipped_byte_in_the_copy_is_found_and_mended(place, tmp_path):
  stored = lay(place / "corpus", tmp_path)
  copy = fetch(place / "corpus", stored)
  flip(copy / "a.bin")
  fetch(place / "corpus", stored)
  assert same(copy, tmp_path / "source-0")


def flip(path):
  content = bytearray(path.read_bytes())
  content[1234] ^= 1
  path.write_bytes(content)


def test_a_flipped_byte_in_the_source_is_never_used(place, tmp_path):
  stored = lay(place / "corpus", tmp_path)
  flip(epath.Path(place) / "corpus/a.bin")
  for _ in range(2):
    with pytest.raises(ValueError, match=r"/corpus/a\.bin is damaged.*again\."):
      fetch(place / "corpus", stored)
  assert not list(HostCopy(CORPORA, place / "corpus").folder.glob("*a.bin*"))


_COPYING = """
import json, sys, time
from realm_jax import files
from realm_jax.checksums import StoredFile
from realm_jax.mirror import CORPORA, HostCopy

download, read = files.download, files.read
def noted(source, path):
  print(source.name, flush=True)
  download(source, path)
def slow(*where):
  for part in read(*where):
    time.sleep(0.002)
    yield part
files.download = noted
if sys.argv[3:]:
  files.read, files._RANGE_BYTES, files._PIECE_BYTES = slow, 4096, 4096
stored = [StoredFile(**each) for each in json.loads(sys.argv[2])]
copy = HostCopy(CORPORA, sys.argv[1])
with copy.in_use():
  copy.fetch(stored, checksums=True)
  assert all((copy.folder / each.path).exists() for each in stored)
"""


def start(folder, stored, *slow):
  """Starts a process that copies a folder; it prints each file's name."""
  known = json.dumps([dataclasses.asdict(each) for each in stored])
  return subprocess.Popen(
    [sys.executable, "-c", _COPYING, str(folder), known, *slow],
    stdout=subprocess.PIPE,
    text=True,
  )


def test_processes_of_a_host_copy_each_file_once(place, tmp_path):
  sizes = {f"{number}.bin": 1_000 for number in range(20)}
  stored = lay(place / "corpus", tmp_path, sizes)
  processes = [start(place / "corpus", stored) for _ in range(2)]
  copied = [process.communicate()[0].split() for process in processes]
  assert [process.returncode for process in processes] == [0, 0]
  assert sorted(copied[0] + copied[1]) == sorted(sizes)


def test_a_killed_copy_is_gone_on_with(place, tmp_path, downloads):
  stored = lay(place / "corpus", tmp_path, {"big": 4_000_000, "next": 10})
  partial = HostCopy(CORPORA, place / "corpus").folder / ".big.partial"
  process = start(place / "corpus", stored, "slow")
  while not (partial.exists() and partial.stat().st_size > 5_000):
    assert process.poll() is None
    time.sleep(0.001)
  process.kill()
  process.communicate()
  copied = partial.stat().st_size
  assert copied < 4_000_000
  copy = fetch(place / "corpus", stored)
  assert downloads == [("big", copied), ("next", 0)]
  assert same(copy, tmp_path / "source-0")
  assert not partial.exists()


def test_what_is_left_of_other_content_is_not_gone_on_with(
  nfs, tmp_path, downloads
):
  stored = lay(nfs / "corpus", tmp_path)
  copy = HostCopy(CORPORA, nfs / "corpus").folder
  copy.mkdir(parents=True)
  (copy / ".a.bin.partial").write_bytes(bytes(1000))
  fetch(nfs / "corpus", stored)
  assert [there for name, there in downloads if name == "a.bin"] == [1000, 0]
  assert same(copy, tmp_path / "source-0")


def lay_two(nfs, tmp_path):
  """Lays two folders; what is known of each."""
  return {
    name: lay(nfs / name, tmp_path, seed=seed)
    for seed, name in enumerate(["one", "two"])
  }


@pytest.mark.parametrize(("kind", "left"), [(CORPORA, 2), (VERSIONS, 1)])
def test_only_what_is_superseded_goes_before_there_is_need(
  kind, left, nfs, tmp_path
):
  for name, stored in lay_two(nfs, tmp_path).items():
    fetch(nfs / name, stored, kind)
  assert len(list((tmp_path / "cache").glob("*/*/a.bin"))) == left


def test_what_is_in_use_stays_though_another_is_used(nfs, tmp_path):
  known = lay_two(nfs, tmp_path)
  with HostCopy(VERSIONS, nfs / "one").in_use():
    one = fetch(nfs / "one", known["one"], VERSIONS)
    fetch(nfs / "two", known["two"], VERSIONS)
    assert same(one, tmp_path / "source-0")


def test_a_full_disk_loses_copies_that_nobody_uses_and_says_what_it_lacks(
  nfs, tmp_path
):
  known = lay_two(nfs, tmp_path)
  huge = StoredFile(path="huge", num_bytes=10**18, sha256="")
  with HostCopy(CORPORA, nfs / "one").in_use():
    one = fetch(nfs / "one", known["one"])
    two = fetch(nfs / "two", known["two"])
    said = f"{nfs}/three takes {10**18:,} more.*{tmp_path}/cache.*REALM_CACHE"
    with pytest.raises(OSError, match=said):
      fetch(nfs / "three", [huge])
    assert one.exists()
    assert not two.exists()


def test_a_file_is_copied_once_and_anew_when_it_was_written_anew(
  place, downloads
):
  for content in ("old", "new"):
    place.mkdir(parents=True, exist_ok=True)
    files.write_whole(place / "texts.jsonl", content)
    for _ in range(2):
      with local_file(place / "texts.jsonl") as local:
        assert local.read_text() == content
  assert downloads == [("texts.jsonl", 0)] * 2


def test_a_copied_file_is_mended(nfs):
  nfs.mkdir()
  (nfs / "texts.jsonl").write_text("good")
  for _ in range(2):
    with local_file(nfs / "texts.jsonl") as local:
      assert local.read_text() == "good"
      local.write_text("bad!")


def test_a_file_that_reads_otherwise_again_is_not_used(nfs):
  nfs.mkdir()
  (nfs / "texts.jsonl").write_text("good")
  with (
    pytest.MonkeyPatch.context() as patch,
    pytest.raises(ValueError, match="changed while it was copied: try again"),
  ):
    patch.setattr(files, "download", lambda _, path: path.write_text("bad!"))
    with local_file(nfs / "texts.jsonl"):
      pass
  with local_file(nfs / "texts.jsonl") as local:
    assert local.read_text() == "good"


def test_a_file_that_is_not_there_is_named(place):
  with (
    pytest.raises(FileNotFoundError, match=r"none\.jsonl"),
    local_file(place / "none.jsonl"),
  ):
    pass


def test_a_file_of_this_host_is_used_where_it_is(nfs, tmp_path):
  with local_file(tmp_path / "texts.jsonl") as local:
    assert local == tmp_path / "texts.jsonl"
