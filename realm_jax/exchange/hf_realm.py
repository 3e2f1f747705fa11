# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's folders of REALM models, told apart by their tensors."""

from collections.abc import Mapping
import dataclasses
import pathlib

from etils import epath

from realm_jax.models import import_realm
from realm_jax.models.import_realm import RealmArchitecture, part
from realm_jax.models.tensor_files import Tensor, find_folder, open_tensors
from realm_jax.shapes import Params

BLOCK_RECORDS = "block_records.npy"
_DECODER = "cls.predictions.decoder."
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """What one folder (or checkpoint) has."""

  name: str
  architecture: RealmArchitecture | None  # None: it has vectors alone.
  # By part: "tower" (of both sides), "query", "document", "encoder", "reader".
  params: Mapping[str, Params]
  block_embs: Tensor | None = None  # f32[N, D]
  blocks: pathlib.Path | None = None  # The file of their texts.
  tokenizer: pathlib.Path | None = None  # A folder.


def read_folder(name: str) -> Source:
  """Reads a folder, or a model of the Hugging Face hub.

  Of `block_emb` and of the texts nothing is read yet.

  Raises:
    ValueError: it is not one of REALM's models, or is damaged.
  """
  folder = find_folder(name, (*_TOKENIZER, BLOCK_RECORDS))
  tensors = open_tensors(folder)
  architecture = import_realm.read_realm_architecture(
    epath.Path(folder) / "config.json"
  )
  blocks = folder / BLOCK_RECORDS
  return Source(
    name=name,
    architecture=architecture,
    params=parts_of(tensors, architecture, name),
    block_embs=tensors.get("block_emb"),
    blocks=blocks if blocks.exists() else None,
    tokenizer=folder
    if any((folder / file).exists() for file in _TOKENIZER[::2])
    else None,
  )


def parts_of(
  tensors: Mapping[str, Tensor], architecture: RealmArchitecture, name: str
) -> dict[str, Params]:
  """Returns the parameters, by `Source`'s names, that tensors hold.

  Raises:
    ValueError: they are none of REALM's models.
  """
  if reader := part(tensors, "reader."):  # RealmForOpenQA.
    # Its masked-language head is not in use, and its decoder not tied: where
    # the head is an encoder's, the decoder is not.
    reader = {k: v for k, v in reader.items() if _DECODER not in k}
    found = parts_of(reader, architecture, name)
    if query := part(tensors, "embedder."):
      params = import_realm.embedder_params(query, architecture.embedder, name)
      # Before fine-tuning, which moves the query's alone, there is one.
      found["query" if "reader" in found else "tower"] = params
    return found
  if part(tensors, "embedder."):  # RealmScorer.
    towers = import_realm.scorer_params(tensors, architecture.embedder, name)
    return {"tower": towers["shared"]} if "shared" in towers else towers
  if "qa_outputs.dense_output.weight" in tensors:
    params = import_realm.reader_params(tensors, architecture.reader, name)
    return {"reader": params}
  if "cls.dense.weight" in tensors:
    params = import_realm.embedder_params(tensors, architecture.embedder, name)
    return {"tower": params}
  if "cls.predictions.transform.dense.weight" in tensors:
    params = import_realm.encoder_params(tensors, architecture.bert, name)
    return {"encoder": params}
  raise ValueError(
    f"{name} has the tensors of none of REALM's models: {sorted(tensors)[:5]}, "
    "…. Give a RealmEmbedder, RealmScorer, RealmKnowledgeAugEncoder, "
    "RealmReader or RealmForOpenQA."
  )
