# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import urllib.parse
import urllib.request

from etils import epath
import pytest

from realm_jax import files


@pytest.fixture(params=["path", "url"])
def place(request, tmp_path):
  """A folder, and one in a store."""
  if request.param == "path":
    return epath.Path(tmp_path)
  return epath.Path(request.getfixturevalue("url"))


def fill(place):
  for name in ("v1/MANIFEST", "v1/part/x", "v2/part/x", "v2/MANIFEST.old", "w"):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(name)


def test_a_file_is_replaced_whole(place):
  files.write_whole(place / "file", "first")
  files.write_whole(place / "file", b"second")
  assert (place / "file").read_text() == "second"
  assert [path.name for path in place.iterdir()] == ["file"]
  assert files.size(place / "file") == 6


@pytest.mark.parametrize("last", [b"\n", b"\r", b"\r\n", b"\0"])
def test_bytes_are_kept_to_the_last(place, tmp_path, last):
  (tmp_path / "made").write_bytes(b"abc" + last)
  files.upload(tmp_path / "made", place / "file")
  assert (place / "file").read_bytes() == b"abc" + last


def test_a_file_that_could_not_be_written_is_as_before(tmp_path):
  files.write_whole(tmp_path / "file", "before")
  with (
    pytest.raises(OSError, match="full"),
    files.new_file(tmp_path / "file") as own,
  ):
    own.write_text("af")
    raise OSError("The disk is full.")
  assert (tmp_path / "file").read_text() == "before"
  assert len(list(tmp_path.iterdir())) == 1


def test_what_is_absent_is_empty_or_an_error(place):
  assert files.entries(place / "absent") == []
  assert files.sizes(place / "absent") == {}
  assert files.marked(place / "absent", "x") == {}
  with pytest.raises(FileNotFoundError):
    files.size(place / "absent")


def test_paths_and_stores_are_listed_alike(place):
  fill(place)
  assert [path.name for path in files.entries(place)] == ["v1", "v2", "w"]
  assert files.marked(place, "MANIFEST") == {
    "v1": True,
    "v2": False,
    "w": False,
  }
  assert files.sizes(place / "v1") == {"MANIFEST": 11, "part/x": 9}
  assert files.sizes(place)["v2/part/x"] == 9


def test_a_listing_shows_what_others_write(url):
  """By another client, so that nothing in this process knows of it."""
  place = epath.Path(url)
  files.write_whole(place / "v1" / "part", "")
  assert files.marked(place, "MANIFEST") == {"v1": False}
  assert len(files.entries(place / "v1")) == 1
  key = urllib.parse.quote(f"{place.name}/v1/MANIFEST", safe="")
  urllib.request.urlopen(
    urllib.request.Request(
      f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/bucket/o"
      f"?uploadType=media&name={key}",
      data=b"{}",
      method="POST",
    )
  ).close()
  assert files.marked(place, "MANIFEST") == {"v1": True}
  assert len(files.entries(place / "v1")) == 2
  assert (place / "v1" / "MANIFEST").exists()


def test_large_files_go_up_and_down(url, tmp_path):
  content = os.urandom(6 * 2**20)  # Sent and fetched in several requests.
  (tmp_path / "up").write_bytes(content)
  files.upload(tmp_path / "up", f"{url}/large")
  files.download(f"{url}/large", pathlib.Path(tmp_path / "down"))
  assert (tmp_path / "down").read_bytes() == content
