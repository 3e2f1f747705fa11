# SPDX-License-Identifier: Apache-2.0
"""A BERT for token classification, as Hugging Face keeps it, whose labels
mean something: random weights, and a head set by hand."""

import functools
import json
import pathlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from realm_jax.config import BertConfig
from realm_jax.models import import_bert
from realm_jax.models.token_classifier import TokenClassifier

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
# What each piece is to be labelled as.
PIECES = {
  "anna": "B-PER",
  "##bel": "O",  # Goes on with a word: its label must not count.
  "lee": "I-PER",
  "paris": "B-LOC",
  "new": "B-LOC",
  "york": "I-LOC",
}
VOCABULARY = (
  *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES),
  *("went", "was", "to", "from", "in", "the", "sea", ".", ",", "-", "é"),
)


_CONFIG = BertConfig(
  vocab_size=len(VOCABULARY),
  hidden_size=32,
  num_layers=2,
  num_heads=4,
  mlp_size=24,
  max_positions=24,
)


def write_classifier(folder: pathlib.Path, **settings: object) -> None:
  """Writes a checkpoint; `settings` go to its config.json."""
  folder.mkdir(parents=True, exist_ok=True)
  save_file(_tensors(), folder / "model.safetensors")
  (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
  written = {
    "model_type": "bert",
    "vocab_size": _CONFIG.vocab_size,
    "hidden_size": _CONFIG.hidden_size,
    "num_hidden_layers": _CONFIG.num_layers,
    "num_attention_heads": _CONFIG.num_heads,
    "intermediate_size": _CONFIG.mlp_size,
    "max_position_embeddings": _CONFIG.max_positions,
    "type_vocab_size": _CONFIG.num_segments,
    "layer_norm_eps": _CONFIG.norm_eps,
    "hidden_act": "gelu",
    "id2label": {str(i): label for i, label in enumerate(LABELS)},
    **settings,
  }
  (folder / "config.json").write_text(json.dumps(written))


@functools.cache
def _tensors() -> dict[str, np.ndarray]:
  """Returns a model whose head reads each piece's own embedding.

  Layers add nothing (their outputs' kernels are zero), so that a state is the
  normed embedding of its piece, and the head is the least-squares map from
  those of the vocabulary to the labels above.
  """
  rows = jnp.zeros((1, 2), jnp.int32)
  module = TokenClassifier(_CONFIG, len(LABELS))
  init = functools.partial(module.init, deterministic=True)
  shapes = jax.eval_shape(init, jax.random.key(0), rows, rows, rows == 0)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
    shapes["params"],
  )
  bert = params["bert"]
  # Places must not drown out the pieces.
  bert["position_embed"]["embedding"] *= 0.01
  flat = traverse_util.flatten_dict(bert)
  for path in flat:
    if path[-2].endswith("norm"):
      flat[path] = np.full_like(flat[path], path[-1] == "scale")
    elif path[0].startswith("layers") and path[-2] in ("output", "mlp_down"):
      flat[path] = np.zeros_like(flat[path])
  bert = traverse_util.unflatten_dict(flat)
  tensors = import_bert.to_tensors({"bert": bert}, _CONFIG.num_layers)
  tensors = {f"bert.{name}": value for name, value in tensors.items()}
  return tensors | _head(bert)


def _head(bert: dict) -> dict[str, np.ndarray]:
  states = (
    bert["token_embed"]["embedding"] + bert["segment_embed"]["embedding"][0]
  )
  states = states - states.mean(axis=1, keepdims=True)
  states /= states.std(axis=1, keepdims=True)
  wanted = np.eye(len(LABELS))[
    [LABELS.index(PIECES.get(piece, "O")) for piece in VOCABULARY]
  ]
  with_bias = np.append(states, np.ones((len(states), 1)), axis=1)
  solution, *_ = np.linalg.lstsq(with_bias, wanted, rcond=None)
  return {
    # As it lies in memory is how it is saved.
    "classifier.weight": np.ascontiguousarray(solution[:-1].T, np.float32),
    "classifier.bias": solution[-1].astype(np.float32),
  }


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> str:
  folder = tmp_path_factory.mktemp("classifier")
  write_classifier(folder)
  return str(folder)
