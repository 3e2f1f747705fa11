# SPDX-License-Identifier: Apache-2.0
"""Files of a workdir, which is a path or the URL of an object store.

A store has no directories, no atomic rename and no lock, only whole objects
that are written and replaced at once, and listings that show each write. What
differs between the two is here; all else uses `epath.Path` for both.
"""

from collections.abc import Iterator, Mapping
import contextlib
import glob
import hashlib
import json
import logging
import os
import pathlib
import shutil
from typing import Any
import uuid

from etils import epath
import fsspec

# Who polls for what others write must not be answered from what this process
# saw before. The other option is epath's, so that there is one client.
fsspec.config.conf.setdefault("gs", {}).update(
  use_listings_cache=False, finalize_on_close=True
)
for _protocol in ("gs", "gcs"):
  fsspec.register_implementation(
    _protocol,
    "realm_jax.gcs.Store",
    clobber=True,
    errtxt="gs:// needs gcsfs: pip install 'realm-jax[gcs]'.",
  )
fsspec.config.conf.setdefault("s3", {}).update(use_listings_cache=False)
fsspec.register_implementation(
  "s3",
  "s3fs.S3FileSystem",
  clobber=True,
  errtxt="s3:// needs s3fs: pip install 'realm-jax[s3]'.",
)
# TensorFlow, where it is installed, has a client of its own, with caches.
os.environ.setdefault("EPATH_USE_TF", "false")
# It raises what it logs, and whoever catches that says so in a line.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
_PIECE_BYTES = 1 << 20  # Read at a time.
# Of a store, so many ranges are asked for together, and held in memory.
_RANGES = 32
_RANGE_BYTES = 1 << 21


def is_url(path: epath.PathLike) -> bool:
  """Whether `path` lies in an object store."""
  return "://" in os.fspath(path)


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
  """Writes or replaces a file that nobody sees half of, even after a kill."""
  data = content.encode() if isinstance(content, str) else content
  if is_url(path):
    # One request. (A file object would commit what it has when the writing
    # is broken off.)
    store, key = _store(path)
    store.pipe_file(key, data)
    return
  with new_file(pathlib.Path(path)) as own:
    own.write_bytes(data)


def claim(path: pathlib.Path, asked: Mapping[str, Any]) -> None:
  """Notes what a folder's work is, or finds the same noted.

  Args:
    path: of the note, in the folder, which is made.
    asked: JSON; what must be the same for work to be gone on with.

  Raises:
    ValueError: it was begun otherwise; names each difference.
    OSError: it cannot be written.
  """
  asked = json.loads(json.dumps(asked))
  path.parent.mkdir(parents=True, exist_ok=True)
  if not path.exists():
    write_whole(path, json.dumps(asked, indent=2, sort_keys=True))
    return
  begun = json.loads(path.read_text())
  differing = [
    f"{name}: {begun.get(name)!r} there, {asked.get(name)!r} now"
    for name in sorted({*begun, *asked})
    if begun.get(name) != asked.get(name)
  ]
  if differing:
    raise ValueError(
      f"{path.parent} was begun otherwise ({'; '.join(differing)}). Ask for "
      "the same, remove it, or choose another --output."
    )


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a name for a file that appears as `path` once it is written."""
  own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    yield own
    os.replace(own, path)
  finally:
    own.unlink(missing_ok=True)


def entries(folder: epath.PathLike) -> list[epath.Path]:
  """Returns what lies in a folder, by name; nothing where there is none."""
  try:
    return sorted(epath.Path(folder).iterdir())
  except FileNotFoundError:
    return []


def marked(folder: epath.PathLike, marker: str) -> dict[str, bool]:
  """Returns what lies in a folder, and of each if it holds a file `marker`.

  One request to a store per 1,000 files below `folder`.
  """
  if not is_url(folder):
    return {path.name: (path / marker).exists() for path in entries(folder)}
  found: dict[str, bool] = {}
  for name in sizes(folder):
    top, _, rest = name.partition("/")
    found[top] = found.get(top, False) or rest == marker
  return found


def sizes(folder: epath.PathLike) -> dict[str, int]:
  """Returns the bytes of each file below a folder, by relative path."""
  if is_url(folder):
    store, key = _store(folder)
    return {
      path.removeprefix(f"{key}/"): info["size"]
      for path, info in store.find(key, detail=True).items()
      if path.startswith(f"{key}/")
    }
  found = {}
  for top, _, names in os.walk(folder):
    for path in (pathlib.Path(top) / name for name in names):
      with contextlib.suppress(FileNotFoundError):  # Deleted just now.
        found[path.relative_to(folder).as_posix()] = path.stat().st_size
  return found


def size(path: epath.PathLike) -> int:
  """Returns a file's bytes.

  Raises:
    FileNotFoundError: there is none.
  """
  if is_url(path):
    return int(epath.Path(path).stat().length)
  return os.stat(path).st_size


def upload(path: pathlib.Path, target: epath.PathLike) -> None:
  """Copies a file of this host elsewhere; it appears there when whole."""
  if is_url(target):
    store, key = _store(target)
    store.put_file(str(path), key)
    return
  target = pathlib.Path(target)
  target.parent.mkdir(parents=True, exist_ok=True)
  with new_file(target) as own:
    shutil.copyfile(path, own)


def download(source: epath.PathLike, path: pathlib.Path) -> None:
  """Copies a file to this host; of one that is there in part, the rest.

  Raises:
    FileNotFoundError: there is no `source`.
  """
  with path.open("ab") as file:
    file.writelines(read(source, file.tell()))


def read(path: epath.PathLike, start: int = 0) -> Iterator[bytes]:
  """Yields a file's bytes from `start` on, in pieces of bounded size.

  Raises:
    FileNotFoundError: there is none.
  """
  if not is_url(path):
    with open(path, "rb") as file:
      file.seek(start)
      while part := file.read(_PIECE_BYTES):
        yield part
    return
  store, key = _store(path)
  num_bytes = size(path)
  for first in range(start, num_bytes, _RANGES * _RANGE_BYTES):
    stop = min(first + _RANGES * _RANGE_BYTES, num_bytes)
    # At the same time: a store answers each request slowly, and many fast.
    starts = list(range(first, stop, _RANGE_BYTES))
    stops = [*starts[1:], stop]
    yield from store.cat_ranges(
      [key] * len(starts), starts, stops, on_error="raise"
    )


def state(path: epath.PathLike) -> str:
  """Returns what is another when a file was written anew.

  Raises:
    FileNotFoundError: there is none.
  """
  store, key = _store(path)
  return store.ukey(key)[:16]


def matching(pattern: str) -> list[str]:
  """Returns the files of a pattern ("*.jsonl"), by name; of a URL, URLs."""
  if not is_url(pattern):
    return sorted(glob.glob(pattern))
  store, key = _store(pattern)
  return sorted(store.unstrip_protocol(path) for path in store.glob(key))


def cache() -> pathlib.Path:
  """Returns this host's folder for copies: $REALM_CACHE."""
  named = os.environ.get("REALM_CACHE") or "~/.cache/realm_jax"
  return pathlib.Path(named).expanduser()


def cached(kind: str, source: epath.PathLike) -> pathlib.Path:
  """Returns the folder in `cache` for one kind of things of a URL or path."""
  digest = hashlib.sha256(os.fspath(source).encode()).hexdigest()
  return cache() / kind / f"{epath.Path(source).name}-{digest[:16]}"


def absolute(path: epath.PathLike) -> str:
  """Returns a path that holds in any working directory, or a URL as it is."""
  return os.fspath(path) if is_url(path) else os.path.abspath(path)


def _store(path: epath.PathLike) -> tuple[fsspec.AbstractFileSystem, str]:
  """Returns the client of a store, or of files, and the path within that."""
  if is_url(path):
    return fsspec.core.url_to_fs(os.fspath(path))
  return fsspec.filesystem("file"), os.path.abspath(path)
