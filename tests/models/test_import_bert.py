# SPDX-License-Identifier: Apache-2.0
import json
import shutil

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from realm_jax.models import import_bert
from realm_jax.models.bert import BertEncoder

LAYOUTS = {
  "bert_model": {"bert", "pooler"},
  "bert_masked_lm": {"bert", "mlm_head"},
  "bert_pretraining": {"bert", "pooler", "mlm_head"},
}


def config_of(golden_config, name):
  tanh = name == "bert_pretraining"
  return golden_config(activation="gelu_tanh" if tanh else "gelu")


@pytest.fixture
def copied(golden, tmp_path):
  """A checkpoint folder that a test may spoil, and its tensors."""

  def copy(name, **tensors):
    case = golden(name)
    folder = tmp_path / name
    shutil.copytree(case.folder, folder)
    kept = {k: v for k, v in (case.weights | tensors).items() if v is not None}
    save_file(kept, folder / "model.safetensors")
    return folder

  return copy


@pytest.mark.parametrize("name", LAYOUTS)
def test_states_equal_hugging_face(name, golden, golden_config):
  case, config = golden(name), config_of(golden_config, name)

  imported = import_bert.load_bert(str(case.folder), config)

  assert set(imported) == LAYOUTS[name]
  states = BertEncoder(config).apply(
    {"params": imported["bert"]}, **case.rows, deterministic=True
  )
  np.testing.assert_allclose(
    states[case.real], case.recorded["states"][case.real], atol=1e-5
  )


def test_pooler_equals_hugging_face(golden, golden_config):
  case = golden("bert_model")

  pooler = import_bert.load_bert(str(case.folder), golden_config())["pooler"]

  first = case.recorded["states"][:, 0]
  np.testing.assert_allclose(
    np.tanh(first @ pooler["kernel"] + pooler["bias"]),
    case.recorded["pooled"],
    atol=1e-5,
  )


@pytest.mark.parametrize("name", LAYOUTS)
def test_export_gives_back_every_tensor(name, golden, golden_config):
  case, config = golden(name), config_of(golden_config, name)
  imported = import_bert.load_bert(str(case.folder), config)

  exported = import_bert.to_tensors(imported, config.num_layers)

  expected = {
    key.removeprefix("bert."): value
    for key, value in case.weights.items()
    if "seq_relationship" not in key
  }
  assert set(exported) == set(expected)
  for key, value in expected.items():
    np.testing.assert_array_equal(exported[key], value)


def test_the_table_names_every_parameter_of_the_encoder(
  golden_config, random_params
):
  config = golden_config()
  ids = jnp.zeros((1, 2), jnp.int32)
  params = random_params(BertEncoder(config), ids, ids, ids == 0)

  paths = traverse_util.flatten_dict({"bert": params}, sep="/")

  assert set(paths) == set(import_bert.bert_table(config.num_layers))


def test_tensorflow_s_norm_names_and_known_buffers_are_read(
  golden, golden_config
):
  case = golden("bert_masked_lm")
  old_names = {
    key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ): value
    for key, value in case.weights.items()
  }
  old_names |= {
    "bert.embeddings.position_ids": np.arange(14)[None],
    "cls.predictions.decoder.weight": case.weights[
      "bert.embeddings.word_embeddings.weight"
    ],
    "cls.predictions.decoder.bias": case.weights["cls.predictions.bias"],
  }

  old = import_bert.from_tensors(old_names, golden_config(), "golden")
  new = import_bert.from_tensors(case.weights, golden_config(), "golden")

  jax.tree.map(np.testing.assert_array_equal, old, new)


def test_half_precision_weights_become_f32(golden, golden_config):
  weights = golden("bert_model").weights
  half = {k: v.astype(ml_dtypes.bfloat16) for k, v in weights.items()}

  imported = import_bert.from_tensors(half, golden_config(), "golden")

  assert {leaf.dtype for leaf in jax.tree.leaves(imported)} == {
    np.dtype("float32")
  }


def test_missing_and_unexpected_tensors_are_named(copied, golden_config):
  folder = copied(
    "bert_model",
    **{
      "encoder.layer.1.output.dense.bias": None,
      "encoder.layer.2.output.dense.bias": np.zeros(16, np.float32),
    },
  )

  with pytest.raises(ValueError) as error:
    import_bert.load_bert(str(folder), golden_config())

  message = str(error.value)
  assert "missing tensors ['encoder.layer.1.output.dense.bias']" in message
  assert "unexpected tensors ['encoder.layer.2.output.dense.bias']" in message


def test_half_a_head_is_refused(golden, golden_config):
  weights = dict(golden("bert_masked_lm").weights)
  del weights["cls.predictions.transform.dense.bias"]

  with pytest.raises(ValueError, match=r"cls.predictions.transform.dense.bias"):
    import_bert.from_tensors(weights, golden_config(), "golden")


def test_an_untied_decoder_is_refused(golden, golden_config):
  weights = dict(golden("bert_masked_lm").weights)
  weights["cls.predictions.decoder.weight"] = np.zeros((40, 16), np.float32)

  with pytest.raises(ValueError, match="Untied decoders"):
    import_bert.from_tensors(weights, golden_config(), "golden")


def test_a_tensor_of_another_shape_is_named_with_both(copied, golden_config):
  folder = copied(
    "bert_model", **{"pooler.dense.bias": np.zeros(3, np.float32)}
  )

  with pytest.raises(
    ValueError, match=r"pooler/bias \(3,\) instead of \(16,\)"
  ):
    import_bert.load_bert(str(folder), golden_config())


def test_another_architecture_is_refused_field_by_field(golden, golden_config):
  folder = str(golden("bert_model").folder)
  config = golden_config(num_layers=3, activation="relu", norm="pre")

  with pytest.raises(ValueError) as error:
    import_bert.load_bert(folder, config)

  message = str(error.value)
  assert "num_layers: 2 there, 3 in this run" in message
  assert "activation: 'gelu' there, 'relu' in this run" in message
  assert "norm: 'post' there, 'pre' in this run" in message
  assert "mlp_size" not in message


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model_type", "roberta", "model_type must be 'bert', got 'roberta'"),
    ("hidden_act", "silu", "hidden_act='silu' is not one of"),
    ("hidden_size", None, r"lacks the fields \['hidden_size'\]"),
    (
      "position_embedding_type",
      "relative_key",
      "positions: 'relative_key' there, 'absolute' in this run",
    ),
  ],
)
def test_a_foreign_config_is_refused(
  field, value, message, copied, golden_config
):
  folder = copied("bert_model")
  raw = json.loads((folder / "config.json").read_text()) | {field: value}
  raw = {key: value for key, value in raw.items() if value is not None}
  (folder / "config.json").write_text(json.dumps(raw))

  with pytest.raises(ValueError, match=message):
    import_bert.load_bert(str(folder), golden_config())


def test_an_unreadable_file_is_named(copied, golden_config):
  folder = copied("bert_model")
  (folder / "model.safetensors").write_bytes(b"not tensors")
  with pytest.raises(ValueError, match=r"model\.safetensors is not readable"):
    import_bert.load_bert(str(folder), golden_config())

  (folder / "model.safetensors").unlink()
  with pytest.raises(ValueError, match=r"Only safetensors are read"):
    import_bert.load_bert(str(folder), golden_config())

  (folder / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not a readable JSON"):
    import_bert.load_bert(str(folder), golden_config())


def test_a_hub_name_is_fetched_without_pickles(
  golden, golden_config, monkeypatch
):
  folder = golden("bert_model").folder
  asked = {}

  def fetch(name, allow_patterns):
    asked.update(name=name, files=allow_patterns)
    return folder

  monkeypatch.setattr(import_bert.huggingface_hub, "snapshot_download", fetch)

  imported = import_bert.load_bert("someone/tiny-bert", golden_config())

  assert set(imported) == {"bert", "pooler"}
  assert asked == {
    "name": "someone/tiny-bert",
    "files": [
      *("config.json", "model.safetensors", "tokenizer.json"),
      *("tokenizer_config.json", "vocab.txt"),
    ],
  }


def test_what_is_neither_folder_nor_model_is_refused(
  golden_config, monkeypatch
):
  def fetch(name, allow_patterns):
    raise OSError("no network")

  monkeypatch.setattr(import_bert.huggingface_hub, "snapshot_download", fetch)

  with pytest.raises(ValueError, match=r"'nothing' is neither .*no network"):
    import_bert.load_bert("nothing", golden_config())


def test_config_path_is_part_of_the_message(tmp_path, golden_config):
  with pytest.raises(ValueError, match=str(tmp_path)):
    import_bert.check_architecture(
      epath.Path(tmp_path) / "config.json", golden_config()
    )
