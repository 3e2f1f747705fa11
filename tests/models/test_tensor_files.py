# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from realm_jax.models import tensor_files


def tensors(start=0):
  return {
    "table": np.arange(start, start + 24, dtype=np.float32).reshape(8, 3),
    "bias": np.arange(3, dtype=np.float16),
  }


@pytest.fixture
def sharded(tmp_path):
  """A folder whose tensors lie in two files."""
  for number, (name, value) in enumerate(tensors().items()):
    save_file({name: value}, tmp_path / f"model-{number}.safetensors")

  def write_index(table="model-0.safetensors"):
    index = {"weight_map": {"table": table, "bias": "model-1.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return tmp_path

  return write_index


def test_tensors_of_a_file_are_arrays_when_asked_for(tmp_path):
  save_file(tensors(), tmp_path / "model.safetensors")

  found = tensor_files.open_tensors(tmp_path)

  assert found.keys() == tensors().keys()
  for name, value in tensors().items():
    assert found[name].shape == value.shape
    np.testing.assert_array_equal(np.asarray(found[name]), value)
  np.testing.assert_array_equal(found["table"][2:5], tensors()["table"][2:5])


def test_several_files_are_read_as_one(sharded):
  found = tensor_files.open_tensors(sharded())

  np.testing.assert_array_equal(found["table"][:1], [[0, 1, 2]])
  assert np.asarray(found["bias"]).dtype == np.float16


def test_an_index_reads_no_file_of_another_folder(sharded):
  with pytest.raises(ValueError, match=r"names '\.\./x.safetensors', which"):
    tensor_files.open_tensors(sharded("../x.safetensors"))
  with pytest.raises(ValueError, match=r"'model-7.safetensors', which is not"):
    tensor_files.open_tensors(sharded("model-7.safetensors"))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_named(sharded, text):
  folder = sharded()
  (folder / "model.safetensors.index.json").write_text(text)

  with pytest.raises(ValueError, match=r"index\.json is no index of weights"):
    tensor_files.open_tensors(folder)


@pytest.mark.parametrize(
  ("there", "fetched"),
  [
    (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
    (["pytorch_model.bin", "block_records.npy"], ["pytorch_model.bin"]),
    (
      [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
      ],
      None,
    ),
    (["tf_model.h5"], []),
  ],
)
def test_one_kind_of_weights_is_fetched_from_the_hub(
  there, fetched, tmp_path, monkeypatch
):
  asked = {}

  def fetch(name, allow_patterns):
    asked.update(name=name, files=allow_patterns)
    return str(tmp_path)

  hub = tensor_files.huggingface_hub
  monkeypatch.setattr(hub, "list_repo_files", lambda name: there)
  monkeypatch.setattr(hub, "snapshot_download", fetch)

  folder = tensor_files.find_folder("someone/tiny", also=["vocab.txt"])

  assert folder == tmp_path
  expected = there if fetched is None else fetched
  assert asked == {
    "name": "someone/tiny",
    "files": ["config.json", *expected, "vocab.txt"],
  }


def test_what_is_neither_folder_nor_model_is_refused(monkeypatch):
  def fetch(name):
    raise OSError("no network")

  monkeypatch.setattr(tensor_files.huggingface_hub, "list_repo_files", fetch)

  with pytest.raises(ValueError, match=r"'nothing' is neither .*no network"):
    tensor_files.find_folder("nothing")
