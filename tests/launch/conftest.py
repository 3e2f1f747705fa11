# SPDX-License-Identifier: Apache-2.0
import pathlib
import shlex

import pytest

CONFIG = pathlib.Path(__file__).parents[1] / "integration" / "tiny_run.py"


class StandIns:
  """Commands on PATH, as real processes that note their arguments."""

  def __init__(self, folder, monkeypatch):
    self.folder = folder / "bin"
    self.folder.mkdir()
    self._calls = folder / "calls"
    monkeypatch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")

  def add(self, name, body=""):
    """Adds a command; `body`, of sh, comes after the note."""
    path = self.folder / name
    calls = shlex.quote(str(self._calls))
    path.write_text(
      "#!/bin/sh\n"
      # In one write: commands may run side by side.
      f"call=$(printf '%s\\037' {shlex.quote(name)} \"$@\")\n"
      f"printf '%s\\036' \"$call\" >> {calls}\n"
      f"{body}\n"
    )
    path.chmod(0o755)
    return str(path)

  def calls(self, name=None):
    """The command lines since the last call of this, oldest first."""
    text = self._calls.read_text() if self._calls.exists() else ""
    self._calls.write_text("")
    found = [call.split("\x1f")[:-1] for call in text.split("\x1e")[:-1]]
    return [call for call in found if name in (None, call[0])]


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
  return StandIns(tmp_path, monkeypatch)
