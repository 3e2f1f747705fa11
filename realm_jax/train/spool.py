# SPDX-License-Identifier: Apache-2.0
"""Files that grow while a run goes on, in a store that cannot append."""

import logging
import pathlib
import shutil
import tempfile
import threading

from etils import epath

from realm_jax import files

_log = logging.getLogger(__name__)
# Between two copies. A store takes one write a second of the same object.
SEND_SECONDS = 2.0


class Spool:
  """A folder on this host whose files are copied to a workdir, whole.

  A workdir that is a path is the folder itself.
  """

  def __init__(self, workdir: epath.PathLike) -> None:
    """Use it as a context manager."""
    self._url = epath.Path(workdir) if files.is_url(workdir) else None
    self.folder = pathlib.Path(
      tempfile.mkdtemp(prefix="realm-") if self._url else workdir
    )
    self._sent: dict[str, int] = {}  # Sizes, at the last copy.
    self._changed = threading.Event()
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._copy, name="spool", daemon=True
    )

  def __enter__(self) -> "Spool":
    if self._url:
      self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._url:
      self._closing.set()
      self._changed.set()
      self._thread.join()
      self._send()
      shutil.rmtree(self.folder)

  def fetch(self, name: str) -> None:
    """Gets what the workdir has of a file, if it has it."""
    if self._url and (self._url / name).exists():
      files.download(self._url / name, self.folder / name)

  def changed(self) -> None:
    """Says that files have grown; they are copied in the background."""
    self._changed.set()

  def _copy(self) -> None:
    while not self._closing.is_set():
      self._changed.wait()
      self._changed.clear()
      try:
        self._send()
      except Exception as error:
        # Training does not depend on it. The next copy has it all.
        _log.warning("%s was not copied: %s", self.folder, error)
      self._closing.wait(SEND_SECONDS)

  def _send(self) -> None:
    assert self._url is not None
    for path in self.folder.iterdir():
      content = path.read_bytes()
      if len(content) != self._sent.get(path.name, 0):
        files.write_whole(self._url / path.name, content)
        self._sent[path.name] = len(content)
