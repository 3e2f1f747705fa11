# SPDX-License-Identifier: Apache-2.0
"""Hugging Face BERT checkpoints <-> our parameters, every tensor named.

Reads `config.json` and the weights as `BertModel`, `BertForMaskedLM`,
`BertForPreTraining`, `BertForTokenClassification` and sentence-transformers
write them; `import_realm` reads REALM's models by the same tables.
"""

from collections.abc import Mapping
import functools
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.config import BertConfig
from realm_jax.models.reader import KnowledgeAugmentedEncoder
from realm_jax.models.tensor_files import Tensor, find_folder, open_tensors
from realm_jax.shapes import Params

# Our name <- Hugging Face's, of modules. `{i}` is the layer.
_BERT_MODULES = {
  "token_embed": "embeddings.word_embeddings",
  "segment_embed": "embeddings.token_type_embeddings",
  "position_embed": "embeddings.position_embeddings",
  "embed_norm": "embeddings.LayerNorm",
}
_LAYER_MODULES = {
  "layers_{i}/attention/query": "encoder.layer.{i}.attention.self.query",
  "layers_{i}/attention/key": "encoder.layer.{i}.attention.self.key",
  "layers_{i}/attention/value": "encoder.layer.{i}.attention.self.value",
  "layers_{i}/attention/output": "encoder.layer.{i}.attention.output.dense",
  "layers_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
  "layers_{i}/mlp_up": "encoder.layer.{i}.intermediate.dense",
  "layers_{i}/mlp_down": "encoder.layer.{i}.output.dense",
  "layers_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
}
_POOLER = {
  "pooler/kernel": "pooler.dense.weight",
  "pooler/bias": "pooler.dense.bias",
}
_MLM_HEAD = {
  "mlm_head/transform/kernel": "cls.predictions.transform.dense.weight",
  "mlm_head/transform/bias": "cls.predictions.transform.dense.bias",
  "mlm_head/norm/scale": "cls.predictions.transform.LayerNorm.weight",
  "mlm_head/norm/bias": "cls.predictions.transform.LayerNorm.bias",
  "mlm_head/bias": "cls.predictions.bias",
}
_CLASSIFIER = {
  "classifier/kernel": "classifier.weight",
  "classifier/bias": "classifier.bias",
}
_PROJECTION = {  # RealmEmbedder's.
  "head/projection/kernel": "cls.dense.weight",
  "head/projection/bias": "cls.dense.bias",
  "head/norm/scale": "cls.LayerNorm.weight",
  "head/norm/bias": "cls.LayerNorm.bias",
}
_SPAN_HEAD = {  # RealmReader's.
  "span_head/ends/kernel": "qa_outputs.dense_intermediate.weight",
  "span_head/ends/bias": "qa_outputs.dense_intermediate.bias",
  "span_head/norm/scale": "qa_outputs.layer_normalization.weight",
  "span_head/norm/bias": "qa_outputs.layer_normalization.bias",
  "span_head/score/kernel": "qa_outputs.dense_output.weight",
  "span_head/score/bias": "qa_outputs.dense_output.bias",
}
# What a checkpoint may have beside its encoder; each is whole or absent.
_PARTS = (_POOLER, _MLM_HEAD, _CLASSIFIER, _PROJECTION, _SPAN_HEAD)
# Tensors that are in checkpoints and not in our models, and why.
_COPIES = {  # Written out twice; must equal what they are tied to.
  "cls.predictions.decoder.weight": "bert/token_embed/embedding",
  "cls.predictions.decoder.bias": "mlm_head/bias",
}
_IGNORED = (
  "embeddings.position_ids",  # 0, 1, 2, ...: a buffer.
  "cls.seq_relationship.weight",  # Next-sentence prediction: not in REALM.
  "cls.seq_relationship.bias",
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
_ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",  # The last of two is the one that is written.
  "relu": "relu",
}
# BertConfig's field <- config.json's. Dropout and dtype are the run's choice.
_FIELDS = {
  "vocab_size": "vocab_size",
  "hidden_size": "hidden_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "mlp_size": "intermediate_size",
  "max_positions": "max_position_embeddings",
  "num_segments": "type_vocab_size",
  "norm_eps": "layer_norm_eps",
  "activation": "hidden_act",
}


def bert_table(num_layers: int) -> dict[str, str]:
  """Our path, "bert/..." -> Hugging Face's name, for every tensor of BERT."""
  modules = dict(_BERT_MODULES)
  for i in range(num_layers):
    modules |= {
      ours.format(i=i): theirs.format(i=i)
      for ours, theirs in _LAYER_MODULES.items()
    }
  table: dict[str, str] = {}
  for ours, theirs in modules.items():
    if ours.endswith("_embed"):
      table[f"bert/{ours}/embedding"] = f"{theirs}.weight"
      continue
    weight = "scale" if ours.endswith("_norm") else "kernel"
    table[f"bert/{ours}/{weight}"] = f"{theirs}.weight"
    table[f"bert/{ours}/bias"] = f"{theirs}.bias"
  return table


def load_bert(source: str, config: BertConfig) -> dict[str, Params]:
  """Reads a checkpoint's parameters as float32 NumPy arrays.

  Args:
    source: a folder, or the name of a model on the Hugging Face hub.
    config: the architecture that is asked for.

  Returns:
    {"bert"} and, where the checkpoint has them, "pooler", "mlm_head" and
    "classifier".

  Raises:
    ValueError: no such checkpoint; another architecture; a tensor that is
      missing, unexpected or of another shape. The message names each.
  """
  folder = find_folder(source)
  check_architecture(epath.Path(folder) / "config.json", config)
  return from_tensors(open_tensors(folder), config, str(folder))


class Checkpoint(NamedTuple):
  """A checkpoint of an architecture that need not be known beforehand."""

  folder: epath.Path
  config: BertConfig
  settings: dict[str, Any]  # `config.json`, as it stands.
  tensors: Mapping[str, Tensor]  # By Hugging Face's names.


def read_checkpoint(source: str) -> Checkpoint:
  """Reads a checkpoint whose `config.json` says what it is.

  Args:
    source: a folder, or the name of a model on the Hugging Face hub.

  Raises:
    ValueError: no such checkpoint, or not BERT's.
  """
  folder = epath.Path(find_folder(source, _TOKENIZER_FILES))
  settings = folder / "config.json"
  config = BertConfig(**read_architecture(settings))
  tensors = open_tensors(pathlib.Path(folder))
  return Checkpoint(folder, config, json.loads(settings.read_text()), tensors)


def from_tensors(
  tensors: Mapping[str, Tensor], config: BertConfig, source: str
) -> dict[str, Params]:
  """Does `load_bert`'s work on {Hugging Face name: tensor}.

  Of RealmEmbedder's tensors "head", and of RealmReader's "span_head", are
  returned, too; their shapes are for the caller to check.
  """
  tensors = {_plain_name(name): value for name, value in tensors.items()}
  table = bert_table(config.num_layers)
  for part in _PARTS:
    if set(part.values()) & set(tensors):
      table |= part
  missing = sorted(set(table.values()) - set(tensors))
  known = {*table.values(), *_IGNORED}
  known |= {name for name, ours in _COPIES.items() if ours in table}
  unexpected = sorted(set(tensors) - known)
  if missing or unexpected:
    raise ValueError(
      f"{source} is no BERT checkpoint of {config.num_layers} layers: "
      f"missing tensors {missing}, unexpected tensors {unexpected}."
    )
  flat = {
    ours: _to_ours(ours, tensors[theirs]) for ours, theirs in table.items()
  }
  _check_copies(tensors, flat, source)
  _check_shapes(flat, config, source)
  return traverse_util.unflatten_dict(flat, sep="/")


def to_tensors(params: Params, num_layers: int) -> dict[str, np.ndarray]:
  """Inverse of `from_tensors`: {"bert", ...} -> {Hugging Face name: array}."""
  table = bert_table(num_layers)
  for part in _PARTS:
    table |= part
  flat = traverse_util.flatten_dict(dict(params), sep="/")
  return {
    table[ours]: np.ascontiguousarray(_transposed(ours, np.asarray(value)))
    for ours, value in flat.items()
  }


def check_architecture(path: epath.Path, config: BertConfig) -> None:
  """Compares a `config.json` with the run's architecture.

  Raises:
    ValueError: the file is unreadable, not BERT's, or differs; the message
      names every field that differs, with both values.
  """
  found = read_architecture(path)
  wanted = {name: getattr(config, name) for name in _FIELDS}
  wanted |= {"norm": config.norm, "positions": config.positions}
  differing = [
    f"{name}: {found[name]!r} there, {wanted[name]!r} in this run"
    for name in wanted
    if found[name] != wanted[name]
  ]
  if differing:
    raise ValueError(
      f"{path} describes another architecture than the run's config. "
      f"{'; '.join(differing)}. Set these fields to the checkpoint's values."
    )


def to_settings(config: BertConfig) -> dict[str, Any]:
  """Inverse of `read_architecture`: what a `config.json` of BERT says.

  Raises:
    ValueError: Hugging Face's BERT has no such architecture.
  """
  if config.norm != "post" or config.positions != "absolute":
    raise ValueError(
      f"BERT has norm='post' and positions='absolute', and the model norm="
      f"{config.norm!r} and positions={config.positions!r}: transformers "
      "could not run it. Its parameters can be exported by themselves."
    )
  activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  settings = {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
  return settings | {
    "model_type": "bert",
    "hidden_act": activations[config.activation],
    "hidden_dropout_prob": config.dropout,
    "attention_probs_dropout_prob": config.attention_dropout,
    "position_embedding_type": "absolute",
  }


def read_settings(path: epath.Path, kind: str) -> dict[str, Any]:
  """Reads the `config.json` of a model of one kind.

  Raises:
    ValueError: it is unreadable, or of another kind.
  """
  try:
    raw = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} is not a readable JSON file: {error}") from error
  found = raw.get("model_type") if isinstance(raw, dict) else None
  if found != kind:
    raise ValueError(f"{path}: model_type must be {kind!r}, got {found!r}.")
  return raw


def read_architecture(path: epath.Path, kind: str = "bert") -> dict[str, Any]:
  """Returns `BertConfig`'s fields that a `config.json` decides on.

  Raises:
    ValueError: it is unreadable, of another kind, lacks a field, or has an
      activation that is not known here.
  """
  raw = read_settings(path, kind)
  absent = sorted(set(_FIELDS.values()) - set(raw))
  if absent:
    raise ValueError(f"{path} lacks the fields {absent}.")
  if raw["hidden_act"] not in _ACTIVATIONS:
    raise ValueError(
      f"{path}: hidden_act={raw['hidden_act']!r} is not one of "
      f"{sorted(_ACTIVATIONS)}."
    )
  found = {ours: raw[theirs] for ours, theirs in _FIELDS.items()}
  found["activation"] = _ACTIVATIONS[raw["hidden_act"]]
  # Files older than the field are of absolute positions.
  found["positions"] = raw.get("position_embedding_type", "absolute")
  return found | {"norm": "post"}


def _plain_name(name: str) -> str:
  # Checkpoints converted from TensorFlow say gamma and beta.
  name = name.removeprefix("bert.").removeprefix("realm.")
  for old, new in (("gamma", "weight"), ("beta", "bias")):
    name = name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}")
  return name


def _transposed(path: str, value: np.ndarray) -> np.ndarray:
  # torch keeps a linear map as [out, in], flax as [in, out].
  return value.T if path.endswith("/kernel") else value


def _to_ours(path: str, tensor: Tensor) -> np.ndarray:
  value = _transposed(path, np.asarray(tensor))
  return np.ascontiguousarray(value, np.float32)


def _check_copies(
  tensors: Mapping[str, Tensor], flat: dict[str, np.ndarray], source: str
) -> None:
  for name, ours in _COPIES.items():
    if name in tensors and not np.array_equal(
      np.asarray(tensors[name]).astype(np.float32), flat[ours]
    ):
      raise ValueError(
        f"{source}: {name} differs from the tensor it must be tied to. "
        "Untied decoders are not supported."
      )


def _check_shapes(
  flat: dict[str, np.ndarray], config: BertConfig, source: str
) -> None:
  wanted = _shapes(config)
  wrong = [
    f"{path} {flat[path].shape} instead of {wanted[path]}"
    for path in flat
    if path in wanted and flat[path].shape != wanted[path]
  ]
  if wrong:
    raise ValueError(f"{source}: tensors of a wrong shape: {'; '.join(wrong)}.")


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
  rows = jnp.zeros((1, 1), jnp.int32)
  init = functools.partial(
    KnowledgeAugmentedEncoder(config).init, deterministic=True
  )
  tree = jax.eval_shape(
    init, jax.random.key(0), rows, rows, rows.astype(bool), rows
  )
  flat = traverse_util.flatten_dict(tree["params"], sep="/")
  width = config.hidden_size
  return {path: leaf.shape for path, leaf in flat.items()} | {
    "pooler/kernel": (width, width),
    "pooler/bias": (width,),
  }
