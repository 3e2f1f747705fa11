# SPDX-License-Identifier: Apache-2.0
"""The official REALM and ORQA checkpoints, which are TensorFlow's.

    cc_news_pretrained/embedder            a TF-Hub module: the towers
                      /embedder/encoded/encoded.ckpt   the blocks' vectors
                      /bert                a TF-Hub module: the encoder
    orqa_nq_model_from_realm/…/model.ckpt-…            query tower and reader

Their variables get Hugging Face's names, and go the same way from there.
Reading them needs TensorFlow: `pip install 'realm-jax[tf]'`.
"""

from collections.abc import Mapping
import importlib
import pathlib
import re
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realm_jax.config import BertConfig
from realm_jax.exchange.hf_realm import Source, parts_of
from realm_jax.models.import_realm import RealmArchitecture

_HEAD_SIZE = 64  # BERT's, of every size: a checkpoint does not say.
_KERAS_NORM_EPS = 1e-3  # Of the projection's LayerNorm.
_MOMENTS = ("adam_m", "adam_v")
# Beginning of a variable's name -> of a tensor's; the first that fits counts.
# A TF-Hub module puts one or more "module/" before its own names.
_PREFIXES = (
  (re.compile(r"^reader/module/bert/"), "reader/realm/"),
  (re.compile(r"^reader/module/cls/"), "reader/cls/"),
  (re.compile(r"^reader/dense/"), "reader/qa_outputs/dense_intermediate/"),
  (re.compile(r"^reader/dense_1/"), "reader/qa_outputs/dense_output/"),
  (
    re.compile(r"^reader/layer_normalization/"),
    "reader/qa_outputs/layer_normalization/",
  ),
  (re.compile(r"^(module/)+bert/"), "embedder/realm/"),
  (re.compile(r"^(module/)+cls/"), "embedder/cls/"),
  (re.compile(r"^(module/)+(?=(dense|LayerNorm)/)"), "embedder/cls/"),
  (re.compile(r"^bert/"), "realm/"),
)
_LAST = {
  "gamma": "weight",
  "beta": "bias",
  "kernel": "weight",
  "output_bias": "bias",
}


@runtime_checkable
class CheckpointReader(Protocol):
  """What is used of TensorFlow's."""

  def get_variable_to_shape_map(self) -> Mapping[str, Any]:
    """Returns every variable's shape by its name."""
    ...

  def get_tensor(self, name: str) -> np.ndarray:
    """Reads a variable."""
    ...


def find_checkpoint(name: str) -> str:
  """Returns the prefix of a checkpoint's files, or "" if `name` means none."""
  for prefix in (name, f"{name}/variables/variables"):
    if pathlib.Path(f"{prefix}.index").exists():
      return prefix
  return ""


def open_checkpoint(prefix: str) -> CheckpointReader:
  """Opens a checkpoint with TensorFlow.

  Raises:
    ImportError: it is not installed.
    ValueError: the files cannot be read.
  """
  try:
    tensorflow = importlib.import_module("tensorflow")
  except ImportError as error:
    raise ImportError(
      f"{prefix} is a checkpoint of TensorFlow, which alone can read it: "
      "pip install 'realm-jax[tf]', or give Hugging Face's form of the model."
    ) from error
  try:
    return tensorflow.train.load_checkpoint(prefix)
  except (tensorflow.errors.OpError, RuntimeError) as error:
    raise ValueError(f"{prefix} cannot be read: {error}") from error


def read_checkpoint(
  prefix: str, reader: CheckpointReader | None = None
) -> Source:
  """Reads a checkpoint, its vectors (6.8 GB of 13 M blocks) at once.

  Args:
    prefix: of its files.
    reader: of them; None for TensorFlow's.

  Raises:
    ImportError: TensorFlow is needed, and not installed.
    ValueError: these are not REALM's variables.
  """
  reader = reader or open_checkpoint(prefix)
  variables = reader.get_variable_to_shape_map()
  names = [
    name
    # Beside the model's, all in some scope, are the optimiser's.
    for name in variables
    if "/" in name and not name.endswith(_MOMENTS)
  ]
  tensors = dict(_as_tensor(name, reader.get_tensor(name)) for name in names)
  architecture = _architecture(tensors, prefix) if tensors else None
  return Source(
    name=prefix,
    architecture=architecture,
    params=parts_of(tensors, architecture, prefix) if architecture else {},
    block_embs=reader.get_tensor("block_emb")
    if "block_emb" in variables
    else None,
  )


def _as_tensor(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
  """Returns a variable under Hugging Face's name, and as torch has it."""
  for prefix, replacement in _PREFIXES:
    if prefix.search(name):
      name = prefix.sub(replacement, name)
      break
  *scopes, last = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).split("/")
  if last == "kernel":
    value = np.ascontiguousarray(value.T)
  if last.endswith("_embeddings"):
    scopes.append(last)
    last = "weight"
  return ".".join([*scopes, _LAST.get(last, last)]), value


def _architecture(
  tensors: Mapping[str, np.ndarray], prefix: str
) -> RealmArchitecture:
  """Tells the sizes by the tensors' shapes; the rest is as published."""

  def shapes(ending: str) -> list[tuple[int, ...]]:
    return [v.shape for name, v in tensors.items() if name.endswith(ending)]

  try:
    (vocab_size, hidden_size), *_ = shapes("embeddings.word_embeddings.weight")
    (max_positions, _), *_ = shapes("embeddings.position_embeddings.weight")
    (num_segments, _), *_ = shapes("embeddings.token_type_embeddings.weight")
    (mlp_size, _), *_ = shapes("layer.0.intermediate.dense.weight")
  except ValueError as error:
    raise ValueError(
      f"{prefix} has no BERT's variables: {sorted(tensors)[:5]}, …."
    ) from error
  layers = {
    int(found[1])
    for name in tensors
    if (found := re.search(r"encoder\.layer\.(\d+)\.", name))
  }
  heads = {
    "dim": shapes("cls.dense.bias"),
    "span_width": shapes("qa_outputs.dense_output.weight"),
  }
  return RealmArchitecture(
    bert=BertConfig(
      vocab_size=vocab_size,
      hidden_size=hidden_size,
      num_layers=len(layers),
      num_heads=max(1, hidden_size // _HEAD_SIZE),
      mlp_size=mlp_size,
      max_positions=max_positions,
      num_segments=num_segments,
      activation="gelu_tanh",
    ),
    head_norm_eps=_KERAS_NORM_EPS,
    **{name: found[0][-1] for name, found in heads.items() if found},
  )
