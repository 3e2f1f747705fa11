# SPDX-License-Identifier: Apache-2.0
"""Writes a corpus' files passage by passage; `corpus.py` lists them."""

import array
from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from typing import Any, BinaryIO, NamedTuple

from array_record.python import array_record_module
from etils import epath
from jaxtyping import Int32
import numpy as np

from realm_jax.checksums import describe_folder
from realm_jax.data.records import Passage
from realm_jax.data.tokenize import Tokenizer
from realm_jax.mirror import CORPORA, HostCopy, is_copied

FORMAT = 2
MANIFEST = "MANIFEST.json"


def check_free(directory: epath.PathLike) -> None:
  """Raises FileExistsError where there is a corpus, or anything else."""
  path = epath.Path(directory)
  # What a killed call has sent elsewhere is no corpus without a manifest.
  if (path / MANIFEST if is_copied(path) else path).exists():
    raise FileExistsError(
      f"{path} exists, and a corpus is final: remove it, or choose another "
      "name."
    )


def uid_hash(uid: str) -> int:
  """Returns 8 bytes of a uid's digest, as an unsigned number."""
  digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


class StoredPassage(NamedTuple):
  """A passage as the files hold it."""

  record: bytes
  uid_hash: int
  content_hash: int
  pieces: np.ndarray  # u16 or u32[n], the title's and then the body's.
  title_length: int
  sentence_starts: np.ndarray  # u16[s]
  starts_document: bool


class PassageFormat:
  """How a corpus of one tokenizer holds its passages."""

  def __init__(self, tokenizer: Tokenizer, max_pieces: int) -> None:
    """See `CorpusWriter`."""
    self.max_pieces = max_pieces
    fits = tokenizer.vocab_size <= 1 << 16
    self.token_dtype = np.dtype(np.uint16 if fits else np.uint32)
    # Pieces of two tokenizers are no equal content: it keys the hashes.
    key = tokenizer.fingerprint.encode()
    self._content = hashlib.blake2b(digest_size=8, key=key)

  def store(
    self,
    passage: Passage,
    title_ids: Int32[np.ndarray, "t"],
    body_ids: Int32[np.ndarray, "b"],
    sentence_starts: Int32[np.ndarray, "s"],
    *,
    starts_document: bool,
  ) -> StoredPassage:
    """Returns a passage as the files hold it."""
    record = json.dumps(
      {"uid": passage.uid, "title": passage.title, "text": passage.text},
      ensure_ascii=False,
    ).encode()
    pieces = np.concatenate([title_ids, body_ids]).astype(self.token_dtype)
    content = self._content.copy()
    content.update(len(title_ids).to_bytes(8, "little"))
    content.update(pieces.tobytes())
    return StoredPassage(
      record=record,
      uid_hash=uid_hash(passage.uid),
      content_hash=int.from_bytes(content.digest(), "little"),
      pieces=pieces,
      title_length=len(title_ids),
      sentence_starts=sentence_starts.astype(np.uint16),
      starts_document=starts_document,
    )


class CorpusWriter:
  """Appends passages to a corpus that nobody can see until it is finished.

  Leaving the `with` block without `finish` removes what was written.
  """

  def __init__(
    self, directory: epath.PathLike, tokenizer: Tokenizer, max_pieces: int
  ) -> None:
    """Opens the files, in a hidden directory beside `directory` or its copy.

    Args:
      directory: must not exist yet; it appears when it is complete.
      tokenizer: makes the pieces; a copy is kept with them.
      max_pieces: P.

    Raises:
      FileExistsError: `directory` is there.
      OSError: the files cannot be made.
    """
    check_free(directory)
    self.format = PassageFormat(tokenizer, max_pieces)
    self._tokenizer = tokenizer
    self._copy = HostCopy(CORPORA, directory)
    folder = self._copy.folder
    self._draft = folder.with_name(f".{folder.name}.partial")
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
    self._document_offsets = array.array("i")
    self._uid_hashes = array.array("Q")
    self._content_hashes = array.array("Q")
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
        f"cannot write the corpus {self._copy.source}: {error}",
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

  def has(self, hashed: int) -> bool:
    """Returns whether a passage of this `uid_hash` was added."""
    return hashed in self._seen

  def append(self, stored: StoredPassage) -> None:
    """Appends a passage whose uid `has` does not know yet.

    Args:
      stored: by this `format`, or from a corpus of the same tokenizer.

    Raises:
      OSError: the disk refuses.
    """
    pieces = stored.pieces.tobytes()
    with self._writing():
      self._records.write(stored.record)
      self._tokens.write(pieces)
      self._sentences.write(stored.sentence_starts.tobytes())
    num_pieces = len(stored.pieces)
    # Lengths too, so that no two corpora run into the same bytes.
    title = stored.title_length
    lengths = [len(stored.record), title, num_pieces - title]
    self._digest.update(np.array(lengths, np.int64).tobytes())
    self._digest.update(stored.record)
    self._digest.update(pieces)
    if stored.starts_document:
      self._document_offsets.append(self.num_passages)
    self._offsets.append(self._offsets[-1] + num_pieces)
    self._sentence_offsets.append(
      self._sentence_offsets[-1] + len(stored.sentence_starts)
    )
    self._title_lengths.append(title)
    self._content_hashes.append(stored.content_hash)
    self._uid_hashes.append(stored.uid_hash)
    self._seen.add(stored.uid_hash)

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
      "document_offsets": np.append(
        np.array(self._document_offsets, np.int32), np.int32(self.num_passages)
      ),
      "passage_hashes": np.array(self._content_hashes, np.uint64),
      "uid_hashes": hashes[order],
      "uid_rows": order.astype(np.int32),
    }
    manifest = {
      "format": FORMAT,
      "fingerprint": self._digest.hexdigest(),
      "num_passages": self.num_passages,
      "num_pieces": self._offsets[-1],
      "token_dtype": self.format.token_dtype.name,
      "max_pieces": self.format.max_pieces,
      "tokenizer_fingerprint": self._tokenizer.fingerprint,
      **facts,
    }
    with self._writing():
      self._files.close()
      for name, values in arrays.items():
        np.save(self._draft / f"{name}.npy", values)
      self._tokenizer.save(self._draft)
      stored = describe_folder(self._draft, self._draft)
      manifest["files"] = [dataclasses.asdict(file) for file in stored]
      (self._draft / MANIFEST).write_text(
        json.dumps(manifest, indent=2, sort_keys=True)
      )
      self._show([*(file.path for file in stored), MANIFEST])

  def _show(self, names: list[str]) -> None:
    """Gives the draft its name; it goes elsewhere file by file, in order."""
    copy = self._copy
    with copy.in_use():
      copy.drop()  # Of a call that was killed.
      os.replace(self._draft, copy.folder)
      for name in names:
        copy.send(copy.folder / name)
