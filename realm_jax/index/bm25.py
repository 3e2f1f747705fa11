# SPDX-License-Identifier: Apache-2.0
"""BM25 over a corpus: passages by the words they share with a question.

    <corpus>/bm25/   arrays and vocabulary as bm25s writes them, memory-mapped,
                     and MANIFEST.json

Nothing of it is trained, so it is the corpus' own and not a run's. It is a
cache: made where it is missing, damaged or of other settings.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import json
import logging
import pathlib
import re
import shutil
from typing import Any

from jaxtyping import Float32
import numpy as np

from realm_jax.checksums import StoredFile, describe_folder, find_damage
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.search import NO_PASSAGE, Neighbors

_log = logging.getLogger(__name__)
K1 = 0.9
B = 0.4
_WORD = re.compile(r"\w+")
_MANIFEST = "MANIFEST.json"
_FILES = {  # Of bm25s.
  "data.csc.index.npy",
  "indices.csc.index.npy",
  "indptr.csc.index.npy",
  "params.index.json",
  "vocab.index.json",
}
# What must be equal for a cache to be of use, beside the corpus.
_SETTINGS = {"format": 1, "k1": K1, "b": B, "words": r"\w+, lower-cased"}


class Bm25Index:
  """A corpus' passages by BM25; threads may share one."""

  def __init__(self, scorer: Any, num_passages: int) -> None:
    """Wraps what `open` opens, a `bm25s.BM25`."""
    self._scorer, self._num_passages = scorer, num_passages

  @classmethod
  def open(cls, corpus: PassageCorpus) -> "Bm25Index":
    """Opens a corpus' BM25, which is built if it has none that is sound.

    Processes that share the corpus build it once. Building takes memory in
    proportion to the corpus' words; reading takes what is read.

    Raises:
      OSError: it has none, and its directory cannot be written to.
    """
    folder = corpus.folder / "bm25"
    if _flaw(folder, corpus):
      with _locked(corpus.folder):
        # Meanwhile another process may have built it.
        if flaw := _flaw(folder, corpus):
          _log.info("Building %s: %s", folder, flaw)
          _build(corpus, folder)
    scorer = _bm25s().BM25.load(folder, mmap=True, show_progress=False)
    return cls(scorer, len(corpus))

  def search(self, texts: Sequence[str], k: int) -> Neighbors:
    """Returns the k best passages of each text; of equals, lower rows first.

    Passages without any of a text's words score 0, and count.

    Raises:
      ValueError: k < 1.
    """
    if k < 1:
      raise ValueError(f"k must be at least 1, got {k}.")
    ids = np.full((len(texts), k), NO_PASSAGE, np.int32)
    scores = np.full((len(texts), k), -np.inf, np.float32)
    for line, text in enumerate(texts):
      of_all = self.scores(text)
      best = _best(of_all, k)
      ids[line, : len(best)] = best
      scores[line, : len(best)] = of_all[best]
    return Neighbors(ids, scores)

  def scores(self, text: str) -> Float32[np.ndarray, "N"]:
    """Returns every passage's score; a word that comes twice counts twice."""
    known = self._scorer.get_tokens_ids(_words(text))
    if not known:
      return np.zeros(self._num_passages, np.float32)
    return self._scorer.get_scores_from_ids(known)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
  k = min(k, len(scores))
  least = np.partition(scores, -k)[-k]
  rows = np.flatnonzero(scores >= least)  # More than k, where some are equal.
  return rows[np.argsort(-scores[rows], kind="stable")[:k]]


def _words(text: str) -> list[str]:
  return _WORD.findall(text.lower())


def _bm25s() -> Any:
  # Imported late: it runs a JAX program, after which processes cannot join.
  import bm25s

  logging.getLogger("bm25s").setLevel(logging.WARNING)
  return bm25s


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
  """Holds a lock among the corpus' users; it ends with the process."""
  with (directory / ".bm25.lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _build(corpus: PassageCorpus, folder: pathlib.Path) -> None:
  draft = folder.with_name(".bm25.draft")
  shutil.rmtree(draft, ignore_errors=True)  # Of a process that was killed.
  vocabulary: dict[str, int] = {}
  pieces = [
    [vocabulary.setdefault(word, len(vocabulary)) for word in _words(text)]
    for text in _texts(corpus)
  ]
  scorer = _bm25s().BM25(k1=K1, b=B, method="lucene")
  scorer.index(
    (pieces, vocabulary), create_empty_token=False, show_progress=False
  )
  scorer.save(draft, show_progress=False)
  manifest = {
    **_SETTINGS,
    "corpus_fingerprint": corpus.fingerprint,
    "files": [dataclasses.asdict(f) for f in describe_folder(draft, draft)],
  }
  (draft / _MANIFEST).write_text(json.dumps(manifest, indent=2))
  shutil.rmtree(folder, ignore_errors=True)
  draft.rename(folder)


def _texts(corpus: PassageCorpus) -> Iterator[str]:
  for stored in corpus.stored(range(len(corpus))):
    passage = json.loads(stored.record)
    yield f"{passage['title']} {passage['text']}"


def _flaw(folder: pathlib.Path, corpus: PassageCorpus) -> str:
  """Says why a cache is of no use; "" if it is."""
  path = folder / _MANIFEST
  try:
    manifest = json.loads(path.read_text())
    stored = [StoredFile(**file) for file in manifest.pop("files")]
  except FileNotFoundError:
    return f"there is no {path}"
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    return f"{path} cannot be read: {error!r}"
  wanted = {**_SETTINGS, "corpus_fingerprint": corpus.fingerprint}
  if manifest != wanted:
    return f"{path} has {manifest}, wanted is {wanted}"
  if (names := {file.path for file in stored}) != _FILES:
    return f"{path} lists {sorted(names)}, wanted are {sorted(_FILES)}"
  for file in stored:
    if damage := find_damage(folder / file.path, file, checksums=True):
      return f"{folder / file.path} is damaged: {damage}"
  return ""
