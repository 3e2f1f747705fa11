# SPDX-License-Identifier: Apache-2.0
"""Official checkpoints, by a reader that stands for TensorFlow's.

TensorFlow is no dependency of the tests: names and shapes are those of the
published variables, numbers those of a recorded Hugging Face model.
"""

import importlib

import numpy as np
import pytest

from realm_jax.exchange import sources, tf_realm
from realm_jax.models.import_realm import part
from realm_jax.models.tensor_files import open_tensors
from tests.models.parity import ROOT

OPEN_QA = ROOT / "realm_open_qa"


class Reader:
  """The two methods that are used of tf.train.load_checkpoint's."""

  def __init__(self, variables):
    self.variables = variables

  def get_variable_to_shape_map(self):
    return {name: list(np.shape(v)) for name, v in self.variables.items()}

  def get_tensor(self, name):
    return self.variables[name]


def as_tensorflow(tensors, renamed):
  """Hugging Face's tensors under the names that TensorFlow gave them."""
  variables = {}
  for name, tensor in tensors.items():
    value = np.asarray(tensor)
    for theirs, original in renamed.items():
      if name.startswith(theirs):
        name = name.replace(theirs, original, 1)
        break
    *scopes, last = name.replace("layer.", "layer_").split(".")
    if scopes[-1].endswith("_embeddings"):
      variables["/".join(scopes)] = value
      continue
    norm = "norm" in scopes[-1].lower()
    if last == "weight":
      last = "gamma" if norm else "kernel"
      value = value if norm else value.T
    elif norm:
      last = "beta"
    elif scopes[-1] == "predictions":
      last = "output_bias"
    variables["/".join([*scopes, last])] = value
  return variables


def used(tensors):
  """Without what the TensorFlow models do not have."""
  return {
    name: value
    for name, value in tensors.items()
    if "decoder" not in name and "block_emb" not in name
  }


FINE_TUNED = {
  "embedder.realm.": "module.module.module.module.bert.",
  "embedder.cls.predictions": "module.module.module.module.cls.predictions",
  "embedder.cls.": "module.module.module.",
  "reader.realm.": "reader.module.bert.",
  "reader.cls.": "reader.module.cls.",
  "reader.qa_outputs.dense_intermediate": "reader.dense",
  "reader.qa_outputs.dense_output": "reader.dense_1",
  "reader.qa_outputs.": "reader.",
}


def same(first, second):
  assert first.keys() == second.keys()
  for name, value in first.items():
    if isinstance(value, dict):
      same(value, second[name])
    else:
      np.testing.assert_array_equal(value, second[name])


def test_a_fine_tuned_checkpoint_is_a_query_tower_and_a_reader():
  expected = sources.read_source(str(OPEN_QA))
  variables = as_tensorflow(used(open_tensors(OPEN_QA)), FINE_TUNED)
  variables["global_step"] = np.int64(7)
  for name in list(variables):
    variables[f"{name}/adam_m"] = variables[name]
  assert "module/module/module/dense/kernel" in variables
  assert "reader/module/bert/encoder/layer_1/output/dense/kernel" in variables

  found = tf_realm.read_checkpoint("model.ckpt-7", Reader(variables))

  assert found.params.keys() == {"query", "reader"}
  same(found.params, dict(expected.params))
  assert found.architecture.dim == 5
  assert found.architecture.span_width == 6
  assert found.architecture.bert.activation == "gelu_tanh"
  assert found.architecture.bert.vocab_size == 119
  assert found.architecture.bert.num_layers == 2


def test_the_original_s_projection_norm_has_keras_epsilon():
  variables = as_tensorflow(used(open_tensors(OPEN_QA)), FINE_TUNED)

  found = tf_realm.read_checkpoint("model.ckpt-7", Reader(variables))

  assert found.architecture.head_norm_eps == 1e-3
  assert found.architecture.bert.norm_eps == 1e-12


@pytest.mark.parametrize(
  ("tensors", "renamed", "name"),
  [
    (
      part(open_tensors(OPEN_QA), "embedder."),
      {
        "realm.": "module.module.module.bert.",
        "cls.predictions": "module.module.module.cls.predictions",
        "cls.": "module.module.",
      },
      "tower",
    ),
    (
      {
        name: value
        for name, value in part(open_tensors(OPEN_QA), "reader.").items()
        if "qa_outputs" not in name
      },
      {"realm.": "bert."},
      "encoder",
    ),
  ],
)
def test_pretrained_modules_are_a_tower_and_an_encoder(tensors, renamed, name):
  variables = as_tensorflow(used(tensors), renamed)

  found = tf_realm.read_checkpoint("variables", Reader(variables))

  assert found.params.keys() == {name}


def test_vectors_come_without_a_model():
  embs = np.ones((3, 5), np.float32)

  found = tf_realm.read_checkpoint("encoded.ckpt", Reader({"block_emb": embs}))

  assert found.architecture is None
  np.testing.assert_array_equal(found.block_embs, embs)


def test_other_variables_are_refused():
  reader = Reader({"dense/kernel": np.ones((2, 2))})

  with pytest.raises(ValueError, match=r"x has no BERT's variables: \['dense"):
    tf_realm.read_checkpoint("x", reader)


def test_without_tensorflow_it_says_what_to_install(tmp_path, monkeypatch):
  (tmp_path / "variables").mkdir()
  (tmp_path / "variables" / "variables.index").touch()

  def missing(name):
    assert name == "tensorflow"
    raise ImportError("no tensorflow")

  monkeypatch.setattr(importlib, "import_module", missing)

  with pytest.raises(ImportError, match=r"pip install 'realm-jax\[tf\]'"):
    sources.read_source(str(tmp_path))
