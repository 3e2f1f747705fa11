# SPDX-License-Identifier: Apache-2.0
"""Models as folders that transformers loads; see `export_run`."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.data.tokenize import Tokenizer
from realm_jax.models.import_bert import to_settings, to_tensors
from realm_jax.shapes import Params

PROJECTION = "projection.safetensors"
_METADATA = {"format": "pt"}  # transformers reads no file without it.


def export_tower(
  folder: pathlib.Path,
  tower: Params,
  config: EmbedderConfig,
  tokenizer: Tokenizer,
) -> None:
  """Writes a tower: a `BertModel`, and its projection in a file beside it.

  The projection has RealmEmbedder's names: `cls.dense` and `cls.LayerNorm`.

  Raises:
    ValueError: Hugging Face's BERT has no such architecture.
  """
  head = dict(tower.get("head", {}))
  parts = {"bert": tower["bert"]}
  if "pooler" in head:
    parts["pooler"] = head.pop("pooler")
  _export_bert(folder, "BertModel", parts, config.bert, tokenizer)
  if head:
    projection = to_tensors({"head": head}, config.bert.num_layers)
    save_file(projection, folder / PROJECTION, _METADATA)


def export_encoder(
  folder: pathlib.Path,
  params: Params,
  config: BertConfig,
  tokenizer: Tokenizer,
) -> None:
  """Writes the knowledge-augmented encoder as a `BertForMaskedLM`.

  Raises:
    ValueError: Hugging Face's BERT has no such architecture.
  """
  _export_bert(folder, "BertForMaskedLM", params, config, tokenizer, "bert.")


def export_reader(
  folder: pathlib.Path,
  params: Params,
  config: BertConfig,
  tokenizer: Tokenizer,
) -> None:
  """Writes the reader: a `BertModel`, and the span head in a file beside it.

  The head has RealmReader's names: `qa_outputs.…`.

  Raises:
    ValueError: Hugging Face's BERT has no such architecture.
  """
  bert, head = {"bert": params["bert"]}, {"span_head": params["span_head"]}
  _export_bert(folder, "BertModel", bert, config, tokenizer)
  tensors = to_tensors(head, config.num_layers)
  save_file(tensors, folder / "span_head.safetensors", _METADATA)


def _export_bert(
  folder: pathlib.Path,
  kind: str,
  params: Params,
  config: BertConfig,
  tokenizer: Tokenizer,
  prefix: str = "",
) -> None:
  settings = to_settings(config)  # Refuses before anything is written.
  folder.mkdir(parents=True)
  settings |= {"architectures": [kind], "pad_token_id": tokenizer.pad_id}
  _write_json(folder / "config.json", settings)
  tensors = {
    name if name.startswith("cls.") else prefix + name: value
    for name, value in to_tensors(params, config.num_layers).items()
  }
  save_file(_as_f32(tensors), folder / "model.safetensors", _METADATA)
  tokenizer.save(folder)
  _write_json(
    folder / "tokenizer_config.json",
    {
      # What tokenizer.json says, and nothing of BERT's own defaults.
      "tokenizer_class": "PreTrainedTokenizerFast",
      "model_max_length": config.max_positions,
      "pad_token": "[PAD]",
      "unk_token": "[UNK]",
      "cls_token": "[CLS]",
      "sep_token": "[SEP]",
      "mask_token": "[MASK]",
    },
  )


def _as_f32(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {
    name: np.ascontiguousarray(value, np.float32)
    for name, value in tensors.items()
  }


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
