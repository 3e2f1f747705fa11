# SPDX-License-Identifier: Apache-2.0
"""Leases: who works on a part of the index, and who reads a version.

A lease is a small file that its holder writes anew every few seconds. Whoever
sees it unchanged for long enough, by a clock of its own, takes the holder for
dead; so no two machines' clocks have to agree, and none has to run forwards.
On the holder's own machine the process table says it at once.

No lock is needed, as a store of objects has none: two builders that claim a
shard at the same moment may both embed it, and both results are right.
"""

import json
import os
import pathlib
import socket
import threading
import time
from types import TracebackType
import uuid

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 6 * BEAT_SECONDS


class Leases:
  """The leases that this process holds; a thread renews them."""

  def __init__(self) -> None:
    """Holds none yet; use it as a context manager."""
    self.holder = uuid.uuid4().hex[:12]
    self._held: set[pathlib.Path] = set()
    self._beat = 0
    # A finaliser may drop a lease in the middle of anything.
    self._lock = threading.RLock()
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._renew, name="leases", daemon=True
    )

  def start(self) -> None:
    """Begins to renew, for as long as the process lives."""
    self._thread.start()

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
    self._closing.set()
    self._thread.join()
    for path in list(self._held):
      self.drop(path)

  def take(self, folder: pathlib.Path) -> pathlib.Path:
    """Says in `folder` that this process is there; returns the lease."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{self.holder}.json"
    with self._lock:
      self._held.add(path)
      self._write(path)
    return path

  def drop(self, path: pathlib.Path) -> None:
    """Ends a lease; one that is gone already is no error."""
    with self._lock:
      self._held.discard(path)
      path.unlink(missing_ok=True)

  def _renew(self) -> None:
    while not self._closing.wait(BEAT_SECONDS):
      with self._lock:
        self._beat += 1
        for path in list(self._held):
          if path in self._held:
            self._write(path)

  def _write(self, path: pathlib.Path) -> None:
    content = {
      "holder": self.holder,
      "machine": _machine(),
      "pid": os.getpid(),
      "beat": self._beat,
    }
    try:
      path.write_text(json.dumps(content), encoding="utf-8")
    except FileNotFoundError:
      # What it is a lease on was deleted; whoever works there will notice.
      self._held.discard(path)


class LeaseObserver:
  """Tells which of others' leases are alive, from looking repeatedly."""

  def __init__(self, expiry_seconds: float = EXPIRY_SECONDS) -> None:
    self._expiry_seconds = expiry_seconds
    # Lease -> (its content, when that was first seen on our clock).
    self._seen: dict[pathlib.Path, tuple[str, float]] = {}

  def live(self, folder: pathlib.Path, *, but: str = "") -> list[str]:
    """Returns the holders of leases in `folder` that are not known dead.

    A lease that is seen for the first time counts as alive, unless its
    process was on this machine and is gone.

    Args:
      folder: where leases were taken; it may be absent.
      but: a holder to leave out, oneself.
    """
    return [
      path.stem
      for path in sorted(folder.glob("*.json"))
      if path.stem != but and self._is_live(path)
    ]

  def clear_dead(self, folder: pathlib.Path) -> None:
    """Deletes the leases in `folder` whose holders are dead."""
    for path in folder.glob("*.json"):
      if not self._is_live(path):
        path.unlink(missing_ok=True)
        self._seen.pop(path, None)

  def _is_live(self, path: pathlib.Path) -> bool:
    try:
      content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
      return False
    now = time.monotonic()
    known, since = self._seen.get(path, (None, now))
    if content != known:
      self._seen[path] = (content, now)
      since = now
    return not _known_dead(content) and now - since < self._expiry_seconds


def _machine() -> str:
  """Names a process table: a host, or a container on one."""
  try:
    return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return ""  # Then nobody looks its processes up.


def _known_dead(content: str) -> bool:
  try:
    lease = json.loads(content)
    here = lease["machine"] == _machine() != ""
    pid = int(lease["pid"])
  except (ValueError, KeyError, TypeError):
    return False  # Half written: its holder is at it.
  if not here:
    return False
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    pass  # Somebody else's, so it is alive.
  return False
