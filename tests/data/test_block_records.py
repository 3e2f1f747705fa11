# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from realm_jax.data import block_records
from realm_jax.data.block_records import read_block_records

BLOCKS = [b"Short.", "Café, 1 May.".encode(), b"x" * 300, b"y" * 70_000]


def save(path, records):
  array = np.empty(len(records), object)
  array[:] = records
  np.save(path, array, allow_pickle=True)
  return path


def save_as_numpy_1(path, records, protocol):
  """NumPy 1 pickled by protocol 3, and older ones by 2."""
  array = np.empty(len(records), object)
  array[:] = records
  with open(path, "wb") as file:
    np.lib.format.write_array_header_1_0(
      file, np.lib.format.header_data_from_array_1_0(array)
    )
    pickle.dump(array, file, protocol=protocol)
  return path


def test_blocks_come_in_order_and_are_numbered(tmp_path):
  path = save(tmp_path / "block_records.npy", BLOCKS)

  found = list(read_block_records(path))

  assert [d.text.encode() for d in found] == BLOCKS
  assert [d.uid for d in found] == ["0", "1", "2", "3"]
  assert found[1].origin == f"{path}: record 1"
  assert block_records.count_block_records(path) == 4


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("count", [1, 2, 1000, 1001, 2500])
def test_every_way_to_pickle_them_is_read(protocol, count, tmp_path):
  blocks = [b"block %d" % i for i in range(count)]
  path = save_as_numpy_1(tmp_path / "b.npy", blocks, protocol)

  found = [d.text.encode() for d in read_block_records(path)]

  assert found == blocks


def test_one_block_at_a_time_is_in_memory(tmp_path):
  blocks = [os.urandom(5_000).hex().encode() for _ in range(2_000)]  # 20 MB
  path = save(tmp_path / "b.npy", blocks)

  tracemalloc.start()
  count = sum(1 for _ in read_block_records(path))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()

  assert count == 2_000
  assert peak < 1_000_000


class Calls:
  def __reduce__(self):
    return os.system, ("touch pwned",)


@pytest.mark.parametrize(
  "records",
  [
    [b"one", Calls()],
    [Calls(), b"one"],
    [b"one", "text"],
    [b"one", 3],
    [b"one", [b"two"]],
    [BLOCKS[2], BLOCKS[2]],  # The second is a reference to the first.
  ],
)
def test_what_is_no_byte_string_is_refused_and_nothing_runs(
  records, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  path = save(tmp_path / "b.npy", records)

  with pytest.raises(ValueError, match="no byte string of its own"):
    list(read_block_records(path))

  assert os.listdir() == ["b.npy"]


def test_a_pickle_that_runs_something_beside_the_blocks_runs_nothing(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  path = save(tmp_path / "b.npy", [b"one", b"two"])
  content = path.read_bytes()
  header = content[: content.index(b"\x80")]
  path.write_bytes(
    header + b"\x80\x03cos\nsystem\nX\x0b\x00\x00\x00touch pwned"
    b"\x85R0](C\x03oneC\x03twoe."
  )

  assert [d.text for d in read_block_records(path)] == ["one", "two"]
  assert os.listdir() == ["b.npy"]


@pytest.mark.parametrize("keep", [5, 100, 200, 1500])
def test_a_truncated_file_is_refused(keep, tmp_path):
  path = save(tmp_path / "b.npy", [b"block %d" % i for i in range(200)])
  path.write_bytes(path.read_bytes()[:keep])

  with pytest.raises(ValueError, match=r"b\.npy (is|holds)"):
    list(read_block_records(path))


def test_another_count_than_the_header_s_is_refused(tmp_path):
  path = save(tmp_path / "b.npy", [b"one", b"two"])
  path.write_bytes(path.read_bytes().replace(b"(2,)", b"(3,)"))

  with pytest.raises(ValueError, match=r"holds 2 records, where .* says 3"):
    list(read_block_records(path))


def test_an_array_of_numbers_is_refused(tmp_path):
  np.save(tmp_path / "b.npy", np.zeros((2, 3)))

  with pytest.raises(ValueError, match=r"float64 and shape \(2, 3\)"):
    list(read_block_records(tmp_path / "b.npy"))


def test_bytes_that_are_no_text_are_named(tmp_path):
  path = save(tmp_path / "b.npy", [b"fine", b"\xff\xfe"])

  with pytest.raises(ValueError, match="record 1: not UTF-8"):
    list(read_block_records(path))
