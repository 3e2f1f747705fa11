# SPDX-License-Identifier: Apache-2.0
"""Exports a released model's look-alike: `python -m … FOLDER`.

For tools/golden/check_export.py, which has transformers load it.
"""

import pathlib
import sys

from realm_jax.data.tokenize import load_tokenizer
from realm_jax.exchange import hf_export, hf_realm
from realm_jax.models import import_realm
from realm_jax.models.import_realm import part
from realm_jax.models.tensor_files import open_tensors
from tests.exchange.lookalike import OPEN_QA


def write(folder: pathlib.Path) -> None:
  """Writes `retriever` and `encoder` into a folder."""
  found = hf_realm.read_folder(str(OPEN_QA)).architecture
  tensors, tokenizer = open_tensors(OPEN_QA), load_tokenizer(OPEN_QA)
  tower = import_realm.embedder_params(
    part(tensors, "embedder."), found.embedder, str(OPEN_QA)
  )
  hf_export.export_tower(folder / "retriever", tower, found.embedder, tokenizer)
  # Its decoder is not the encoder's, which is tied to the embeddings.
  reader = {
    name: tensor
    for name, tensor in part(tensors, "reader.").items()
    if "decoder" not in name and "qa_outputs" not in name
  }
  encoder = import_realm.encoder_params(reader, found.bert, str(OPEN_QA))
  hf_export.export_encoder(folder / "encoder", encoder, found.bert, tokenizer)


if __name__ == "__main__":
  write(pathlib.Path(sys.argv[1]))
