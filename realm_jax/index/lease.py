# SPDX-License-Identifier: Apache-2.0
"""Leases: who works on a part of the index, and who reads a version.

A lease is a small file that its holder writes anew every few seconds. Whoever
sees it unchanged for long enough, by a clock of its own, takes the holder for
dead; so no two machines' clocks have to agree, and none has to run forwards.
On the holder's own machine the process table says it at once: a holder's name
tells machine and process, though its file may be empty, as it was killed.

No lock is needed, as a store of objects has none: two builders that claim a
shard at the same moment may both embed it, and both results are right.
"""

import atexit
import collections
from collections.abc import Iterator
import contextlib
import functools
import hashlib
import json
import logging
import os
import queue
import socket
import threading
import time
from types import TracebackType
import uuid

from etils import epath
import psutil

from realm_jax import files

_log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 6 * BEAT_SECONDS
_NOWHERE = "0" * 8  # A machine whose processes nobody looks up.


class Leases:
  """The leases that this process holds; a thread renews them."""

  def __init__(self) -> None:
    """Holds none yet; use it as a context manager."""
    # 24 hexadecimal digits: machine, process, and which of its `Leases`.
    self.holder = f"{_machine()}{os.getpid():08x}{uuid.uuid4().hex[:8]}"
    # How often each is taken.
    self._held: collections.Counter[epath.Path] = collections.Counter()
    self._beat = 0
    self._lock = threading.RLock()
    # What to drop, or None at the end.
    self._orders: queue.SimpleQueue[epath.Path | None] = queue.SimpleQueue()
    self._thread = threading.Thread(
      target=self._renew, name="leases", daemon=True
    )

  def start(self) -> None:
    """Begins to renew, until `close` or the end of the process."""
    self._thread.start()

  def close(self) -> None:
    """Ends all leases."""
    self._orders.put(None)
    self._thread.join()
    for path in list(self._held):
      try:
        _remove(path)
      except Exception as error:
        # A store's client works no more when the interpreter shuts down.
        _log.info("Lease %s is left to expire: %s", path, error)
    self._held.clear()

  def __enter__(self) -> "Leases":
    self.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    del kind, error, trace
    self.close()

  def take(self, folder: epath.PathLike) -> epath.Path:
    """Says in `folder` that this process is there; returns the lease."""
    folder = epath.Path(folder)
    path = folder / f"{self.holder}.json"
    with self._lock:
      while not self._write(path):
        # Another may find the folder empty, and delete it, at any moment: in
        # the middle of mkdir, too, which then says that it exists.
        with contextlib.suppress(FileExistsError):
          folder.mkdir(parents=True, exist_ok=True)
      self._held[path] += 1
    return path

  def drop(self, path: epath.Path) -> None:
    """Ends a lease, if it was taken once; one that is gone is no error."""
    with self._lock:
      self._held[path] -= 1
      if self._held[path] <= 0:
        del self._held[path]
        _remove(path)

  def drop_soon(self, path: epath.Path) -> None:
    """As `drop`, on the renewing thread.

    For finalisers: they run in the middle of anything, on any thread, so they
    may neither wait for a lock nor for a store.
    """
    self._orders.put(path)

  def _renew(self) -> None:
    next_beat = time.monotonic() + BEAT_SECONDS
    while True:
      try:
        left = max(next_beat - time.monotonic(), 0.0)
        if (path := self._orders.get(timeout=left)) is None:
          return
      except queue.Empty:
        path = None
        next_beat = time.monotonic() + BEAT_SECONDS
      try:
        if path is None:
          self._write_all()
        else:
          self.drop(path)
      except Exception as error:
        # A store out of reach, or a full disk: leases that others take for
        # dead cost work done twice. A dead thread would lose them for good.
        _log.warning("Leases could not be renewed: %s", error)

  def _write_all(self) -> None:
    with self._lock:
      self._beat += 1
      for path in list(self._held):
        if not self._write(path):
          # What it is a lease on was deleted; whoever works there will notice.
          del self._held[path]

  def _write(self, path: epath.Path) -> bool:
    """Returns whether the lease's folder is there."""
    host = socket.gethostname()
    content = {"host": host, "pid": os.getpid(), "beat": self._beat}
    try:
      path.write_text(json.dumps(content))
    except FileNotFoundError:
      return False
    return True


@contextlib.contextmanager
def reading(folder: epath.PathLike) -> Iterator[None]:
  """Holds a lease in `folder`; it may be closed by a finaliser."""
  leases = _reading()
  path = leases.take(folder)
  try:
    yield
  finally:
    leases.drop_soon(path)


@functools.cache
def _reading() -> Leases:
  leases = Leases()
  leases.start()
  atexit.register(leases.close)
  return leases


class LeaseObserver:
  """Tells which of others' leases are alive, from looking repeatedly."""

  def __init__(self, expiry_seconds: float = EXPIRY_SECONDS) -> None:
    self._expiry_seconds = expiry_seconds
    # Lease -> (its content, when that was first seen on our clock).
    self._seen: dict[epath.Path, tuple[str, float]] = {}

  def live(self, folder: epath.PathLike, *, but: str = "") -> list[str]:
    """Returns the holders of leases in `folder` that are not known dead.

    A lease that is seen for the first time counts as alive, unless its
    process was on this machine and is gone.

    Args:
      folder: where leases were taken; it may be absent.
      but: a holder to leave out, oneself.
    """
    return [
      path.stem
      for path in _leases(folder)
      if path.stem != but and self._is_live(path)
    ]

  def clear_dead(self, folder: epath.PathLike) -> None:
    """Deletes the leases in `folder` whose holders are dead."""
    for path in _leases(folder):
      if not self._is_live(path):
        _remove(path)
        self._seen.pop(path, None)

  def _is_live(self, path: epath.Path) -> bool:
    try:
      content = path.read_text()
    except FileNotFoundError:
      return False
    now = time.monotonic()
    known, since = self._seen.get(path, (None, now))
    if content != known:
      self._seen[path] = (content, now)
      since = now
    return not _known_dead(path.stem) and now - since < self._expiry_seconds


def _remove(path: epath.Path) -> None:
  path.unlink(missing_ok=True)
  if not files.is_url(path):
    with contextlib.suppress(OSError):  # Others hold leases there.
      os.rmdir(path.parent)


def _leases(folder: epath.PathLike) -> list[epath.Path]:
  return [path for path in files.entries(folder) if path.suffix == ".json"]


def _machine() -> str:
  """Returns 8 hexadecimal digits for a host, or a container on one."""
  try:
    name = f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return _NOWHERE
  return hashlib.sha256(name.encode()).hexdigest()[:8]


def _known_dead(holder: str) -> bool:
  machine, pid = holder[:8], holder[8:16]
  if machine != _machine() or machine == _NOWHERE:
    return False
  try:
    os.kill(int(pid, 16), 0)
    # Killed, but whoever started it has not asked how it ended.
    return psutil.Process(int(pid, 16)).status() == psutil.STATUS_ZOMBIE
  except (ProcessLookupError, psutil.NoSuchProcess):
    return True
  except PermissionError:
    return False  # Somebody else's, so it is alive.
