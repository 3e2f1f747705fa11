# SPDX-License-Identifier: Apache-2.0
"""torch itself wrote the files beside the recorded models; here are others."""

import os
import pathlib
import pickle
import pickletools
import zipfile

import numpy as np
import pytest

from realm_jax.models.torch_files import read_torch_file
from tests.models.parity import ROOT, Golden

READER = ROOT / "realm_reader" / "pytorch_model.bin"


@pytest.fixture
def write(tmp_path):
  """Writes an archive as torch lays it out, around any pickle."""

  def make(content, storages=(), compression=zipfile.ZIP_STORED):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", compression) as archive:
      archive.writestr("archive/data.pkl", content)
      for key, values in enumerate(storages):
        archive.writestr(f"archive/data/{key}", values.tobytes())
    return path

  return make


def tensor(size=6, offset=0, shape=(2, 3), strides=(3, 1), kind="Float"):
  """Opcodes of a state dict of one tensor, as torch 2 writes them."""
  sizes = b"(" + b"".join(b"K" + bytes([size]) for size in shape) + b"t"
  steps = b"(" + b"".join(b"K" + bytes([step]) for step in strides) + b"t"
  return b"".join(
    [
      b"\x80\x02ccollections\nOrderedDict\n)R",
      b"X\x01\x00\x00\x00w",  # Its name, "w".
      b"ctorch._utils\n_rebuild_tensor_v2\n((",
      b"X\x07\x00\x00\x00storage" + f"ctorch\n{kind}Storage\n".encode(),
      b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu",
      b"K" + bytes([size]) + b"tQK" + bytes([offset]),
      sizes + steps + b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
  )


def test_tensors_are_those_that_torch_wrote():
  found = read_torch_file(READER)

  # Recorded with the model that was saved: its gradients have their shapes.
  for name, gradient in Golden.load("realm_reader").gradients.items():
    if not name.startswith("input."):
      assert found[name].shape == gradient.shape
  assert found["realm.embeddings.LayerNorm.weight"].dtype == np.float32


def test_nothing_is_read_before_it_is_asked_for():
  found = read_torch_file(READER)["realm.embeddings.word_embeddings.weight"]

  base = found
  while not isinstance(base, np.memmap):
    base = base.base
  assert pathlib.Path(base.filename) == READER
  with pytest.raises(ValueError, match="read-only"):
    found[0, 0] = 1.0


def test_views_and_types_are_kept(write):
  values = np.arange(6, dtype=np.int64)
  content = tensor(shape=(3, 2), strides=(1, 3), kind="Long")

  found = read_torch_file(write(content, [values]))["w"]

  np.testing.assert_array_equal(found, values.reshape(2, 3).T)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"offset": 1}, "ends at 6 of a storage of 6 numbers"),
    ({"shape": (3, 3)}, "ends at 8 of a storage of 6 numbers"),
    ({"strides": (200, 1)}, "ends at 202 of a storage"),
    ({"strides": (1,)}, "a tensor of sizes"),
    ({"size": 7}, "has 24 bytes, and 7 numbers of type float32"),
    ({"kind": "Untyped"}, "asks for torch.UntypedStorage"),
  ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(fields, message, write):
  path = write(tensor(**fields), [np.arange(6, dtype=np.float32)])

  with pytest.raises(ValueError, match=message):
    read_torch_file(path)


def calling(function, *args):
  class Calls:
    def __reduce__(self):
      return function, args

  return pickle.dumps({"w": Calls()}, protocol=2)


@pytest.mark.parametrize(
  "content",
  [
    calling(os.system, "touch pwned"),
    calling(eval, "open('pwned', 'w')"),
    calling(getattr, "x", "__class__"),
    # By the opcodes that torch does not use.
    b"\x80\x02(S'touch pwned'\nios\nsystem\n.",  # INST
    b"\x80\x02(cos\nsystem\nS'touch pwned'\no.",  # OBJ
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    # What is known must not be changed either.
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}S'x'\nK\x01sb.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}S'__call__'\nK\x01stb.",
    b"\x80\x02ctorch\nFloatStorage\n}S'dtype'\nK\x01sb.",
    b"\x80\x02ccollections\nOrderedDict\n}S'items'\nK\x01sb.",
  ],
)
def test_a_pickle_that_does_anything_else_is_refused(
  content, write, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert list(pickletools.genops(content))  # It is well-formed.
  path = write(content)

  with pytest.raises(ValueError, match="is refused"):
    read_torch_file(path)

  assert os.listdir() == [path.name]
  # Nothing that reads the next file has changed.
  assert read_torch_file(READER)["qa_outputs.dense_output.bias"].shape == (1,)


@pytest.mark.parametrize(
  "value", [3, [1, 2], {"w": "text"}, {3: 4}, {"w": [1.0]}]
)
def test_what_is_no_dictionary_of_tensors_is_refused(value, write):
  with pytest.raises(ValueError, match="more than tensors by name"):
    read_torch_file(write(pickle.dumps(value, protocol=2)))


def test_a_compressed_storage_is_refused(write):
  values = np.zeros(6, np.float32)
  path = write(tensor(), [values], zipfile.ZIP_DEFLATED)

  with pytest.raises(ValueError, match="archive/data/0 is compressed"):
    read_torch_file(path)


def test_a_storage_that_is_not_there_is_refused(write):
  with pytest.raises(ValueError, match="archive/data/0"):
    read_torch_file(write(tensor()))


def test_a_file_of_an_old_torch_is_named(tmp_path):
  path = tmp_path / "pytorch_model.bin"
  path.write_bytes(pickle.dumps({}))

  with pytest.raises(ValueError, match=r"no file of torch 1\.6 or later"):
    read_torch_file(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused(keep, tmp_path):
  path = tmp_path / "pytorch_model.bin"
  content = READER.read_bytes()
  path.write_bytes(content[: int(keep * len(content))])

  with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
    read_torch_file(path)
