# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.checksums import StoredFile, check_files, describe_folder

REMEDY = "Write it anew."


def _files(directory):
  (directory / "a").mkdir()
  (directory / "a" / "b").write_bytes(b"hello")
  (directory / "c").write_bytes(b"")
  return describe_folder(directory, directory)


def test_files_are_described_by_their_content(tmp_path):
  first, second = _files(tmp_path)
  assert (first.path, first.num_bytes) == ("a/b", 5)
  assert first.sha256.startswith("2cf24dba")  # Of "hello".
  assert (second.path, second.num_bytes) == ("c", 0)
  check_files(tmp_path, (first, second), checksums=True, remedy=REMEDY)


def test_a_truncated_file_is_found_by_its_size(tmp_path):
  files = _files(tmp_path)
  (tmp_path / "a" / "b").write_bytes(b"hell")
  with pytest.raises(ValueError, match=r"damaged: 4, where.*says 5\. Write it"):
    check_files(tmp_path, files, checksums=False, remedy=REMEDY)


def test_a_flipped_byte_is_found_by_its_checksum(tmp_path):
  files = _files(tmp_path)
  (tmp_path / "a" / "b").write_bytes(b"hallo")
  check_files(tmp_path, files, checksums=False, remedy=REMEDY)
  with pytest.raises(ValueError, match="2cf24dba"):
    check_files(tmp_path, files, checksums=True, remedy=REMEDY)


def test_a_missing_file_is_found(tmp_path):
  files = _files(tmp_path)
  (tmp_path / "c").unlink()
  with pytest.raises(ValueError, match="damaged: absent"):
    check_files(tmp_path, files, checksums=False, remedy=REMEDY)


@pytest.mark.parametrize("path", ["/a", "../a", "a/../../b"])
def test_a_file_outside_of_its_folder_is_refused(path):
  with pytest.raises(ValueError, match=path):
    StoredFile(path=path, num_bytes=0, sha256="")
