# SPDX-License-Identifier: Apache-2.0
"""Writes a corpus' files passage by passage; `corpus.py` lists them."""

import array
from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any, BinaryIO

from array_record.python import array_record_module
from jaxtyping import Int32
import numpy as np

from realm_jax.data.records import Passage

FORMAT = 1
MANIFEST = "MANIFEST.json"


def uid_hash(uid: str) -> int:
  """Returns 8 bytes of a uid's digest, as an unsigned number."""
  digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


class CorpusWriter:
  """Appends passages to a corpus that nobody can see until it is finished.

  Leaving the `with` block without `finish` removes what was written.
  """

  def __init__(self, directory: pathlib.Path, vocab_size: int) -> None:
    """Opens the files, in a hidden directory beside `directory`.

    Raises:
      FileExistsError: `directory` is there.
      OSError: the files cannot be made.
    """
    if directory.exists():
      raise FileExistsError(
        f"{directory} exists, and a corpus is final: remove it, or choose "
        "another name."
      )
    self._directory = directory
    self._draft = directory.with_name(f".{directory.name}.partial")
    self._token_dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else "u4")
    with self._writing():
      shutil.rmtree(self._draft, ignore_errors=True)  # Of a killed build.
      self._draft.mkdir(parents=True)
      self._files = contextlib.ExitStack()
      self._tokens = self._open("tokens.bin")
      self._sentences = self._open("sentences.bin")
      self._records = array_record_module.ArrayRecordWriter(
        str(self._draft / "passages.array_record"), "group_size:1"
      )
      self._files.callback(self._records.close)
    self._offsets = array.array("q", [0])
    self._sentence_offsets = array.array("q", [0])
    self._title_lengths = array.array("H")
    self._uid_hashes = array.array("Q")
    # Two different uids share a hash once in 200,000 corpora of 13 M.
    self._seen: set[int] = set()
    self._digest = hashlib.sha256()

  def _open(self, name: str) -> BinaryIO:
    return self._files.enter_context(open(self._draft / name, "wb"))

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter.
      raise OSError(
        getattr(error, "errno", None),
        f"cannot write the corpus {self._directory}: {error}",
      ) from error

  def __enter__(self) -> "CorpusWriter":
    return self

  def __exit__(self, *error: object) -> None:
    if self._draft.exists():
      # A full disk refuses the rest of the buffers once more.
      with contextlib.suppress(OSError, RuntimeError):
        self._files.close()
      shutil.rmtree(self._draft, ignore_errors=True)

  @property
  def num_passages(self) -> int:
    """Passages added so far."""
    return len(self._uid_hashes)

  def has(self, uid: str) -> bool:
    """Returns whether a passage of this uid was added."""
    return uid_hash(uid) in self._seen

  def add(
    self,
    passage: Passage,
    title_ids: Int32[np.ndarray, "t"],
    body_ids: Int32[np.ndarray, "b"],
    sentence_starts: Int32[np.ndarray, "s"],
  ) -> None:
    """Appends a passage whose uid `has` does not know yet.

    Raises:
      OSError: the disk refuses.
    """
    record = json.dumps(
      {"uid": passage.uid, "title": passage.title, "text": passage.text},
      ensure_ascii=False,
    ).encode()
    pieces = np.concatenate([title_ids, body_ids]).astype(self._token_dtype)
    with self._writing():
      self._records.write(record)
      self._tokens.write(pieces.tobytes())
      self._sentences.write(sentence_starts.astype(np.uint16).tobytes())
    # Lengths too, so that no two corpora run into the same bytes.
    lengths = [len(record), len(title_ids), len(body_ids)]
    self._digest.update(np.array(lengths, np.int64).tobytes())
    self._digest.update(record)
    self._digest.update(pieces.tobytes())
    self._offsets.append(self._offsets[-1] + len(pieces))
    self._sentence_offsets.append(
      self._sentence_offsets[-1] + len(sentence_starts)
    )
    self._title_lengths.append(len(title_ids))
    hashed = uid_hash(passage.uid)
    self._uid_hashes.append(hashed)
    self._seen.add(hashed)

  def finish(self, facts: dict[str, Any]) -> None:
    """Completes the files, with `facts` in the manifest, and shows them.

    Raises:
      OSError: the disk refuses.
    """
    hashes = np.array(self._uid_hashes, np.uint64)
    order = np.argsort(hashes, kind="stable")
    arrays: dict[str, np.ndarray] = {
      "offsets": np.array(self._offsets, np.int64),
      "sentence_offsets": np.array(self._sentence_offsets, np.int64),
      "title_lengths": np.array(self._title_lengths, np.uint16),
      "uid_hashes": hashes[order],
      "uid_rows": order.astype(np.int32),
    }
    manifest = {
      "format": FORMAT,
      "fingerprint": self._digest.hexdigest(),
      "num_passages": self.num_passages,
      "num_pieces": self._offsets[-1],
      "token_dtype": self._token_dtype.name,
      **facts,
    }
    with self._writing():
      self._files.close()
      for name, values in arrays.items():
        np.save(self._draft / f"{name}.npy", values)
      (self._draft / MANIFEST).write_text(
        json.dumps(manifest, indent=2, sort_keys=True)
      )
      os.replace(self._draft, self._directory)
