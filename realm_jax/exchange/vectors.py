# SPDX-License-Identifier: Apache-2.0
"""An index version's vectors as one file, written a part at a time."""

from collections.abc import Callable
import json
import pathlib
from typing import BinaryIO, Literal

import numpy as np

from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.embeddings import Embeddings

Format = Literal["npy", "safetensors"]
NAME = "block_emb"  # As in Hugging Face's REALM.
_ROWS = 2**16


def write_vectors(
  folder: pathlib.Path, embeddings: Embeddings, kind: Format
) -> pathlib.Path:
  """Writes f32[N, D] as `embeddings.npy` or `embeddings.safetensors`."""
  path = folder / f"embeddings.{kind}"
  with path.open("wb") as file:
    _HEADERS[kind](file, embeddings.shape)
    for _, rows in embeddings.blocks(_ROWS):
      file.write(np.ascontiguousarray(rows, "<f4").tobytes())
  return path


def _npy_header(file: BinaryIO, shape: tuple[int, int]) -> None:
  np.lib.format.write_array_header_1_0(
    file, {"descr": "<f4", "fortran_order": False, "shape": shape}
  )


def _safetensors_header(file: BinaryIO, shape: tuple[int, int]) -> None:
  # The library writes whole arrays alone: 6.8 GB of 13 M passages.
  num_bytes = 4 * shape[0] * shape[1]
  entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}
  header = json.dumps({NAME: entry}).encode()
  header += b" " * (-len(header) % 8)
  file.write(len(header).to_bytes(8, "little") + header)


_HEADERS: dict[str, Callable[[BinaryIO, tuple[int, int]], None]] = {
  "npy": _npy_header,
  "safetensors": _safetensors_header,
}


def write_uids(folder: pathlib.Path, corpus: PassageCorpus) -> None:
  """Writes `uids.jsonl`: line i is the uid of row i, a JSON string."""
  with (folder / "uids.jsonl").open("w", encoding="utf-8") as file:
    for stored in corpus.stored(range(len(corpus))):
      uid = json.loads(stored.record)["uid"]
      file.write(json.dumps(uid, ensure_ascii=False) + "\n")
