# SPDX-License-Identifier: Apache-2.0
"""Documents become a corpus, in one pass and bounded memory."""

from collections.abc import Callable, Iterable

from etils import epath

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_writer import CorpusWriter, PassageFormat
from realm_jax.data.passages import (
  CutPassage,
  EncodedDocument,
  add_passages,
  cut_document,
  encode_documents,
)
from realm_jax.data.records import Document
from realm_jax.data.tokenize import Tokenizer


def build_corpus(
  documents: Iterable[Document],
  tokenizer: Tokenizer,
  directory: epath.PathLike,
  max_pieces: int,
  progress: Callable[[int], None] | None = None,
) -> PassageCorpus:
  """Splits, tokenises and stores documents; returns the opened corpus.

  A document becomes passages of whole sentences (ORQA's blocks). The first
  has the document's uid, the next ones `uid#1`, `uid#2`, ...; without a uid,
  a passage's is the SHA-1 of its title and text, and a passage that repeats
  an earlier one word for word is left out. One pass; memory grows by about
  130 bytes a passage.

  Args:
    documents: read once, in order; one without text is left out.
    tokenizer: makes the pieces.
    directory: must not exist yet; it appears when it is complete.
    max_pieces: P, pieces of a passage with its title and special tokens. A
      longer title than half of that is cut.
    progress: called now and then with the number of passages so far.

  Raises:
    FileExistsError: `directory` is there.
    ValueError: no passage at all, a uid that occurs twice, `max_pieces` out
      of range; and what reading `documents` raises.
    OSError: the files cannot be written. In no case is anything left behind.
  """
  check_max_pieces(max_pieces)
  tokenized = encode_documents(documents, tokenizer)
  form = PassageFormat(tokenizer, max_pieces)
  parts = (_cut(batch, form) for batch in tokenized)
  return counted_corpus(parts, tokenizer, directory, max_pieces, progress)


def _cut(
  batch: list[EncodedDocument], form: PassageFormat
) -> tuple[list[CutPassage], dict[str, int]]:
  passages = [p for encoded in batch for p in cut_document(encoded, form)]
  empty = sum(len(encoded.text) == 0 for encoded in batch)
  return passages, {"num_documents": len(batch), "num_empty": empty}


def counted_corpus(
  parts: Iterable[tuple[list[CutPassage], dict[str, int]]],
  tokenizer: Tokenizer,
  directory: epath.PathLike,
  max_pieces: int,
  progress: Callable[[int], None] | None = None,
) -> PassageCorpus:
  """Does `build_corpus`' work on passages that are cut already.

  Args:
    parts: passages, with "num_documents" that they are of and of those
      "num_empty" without a word piece.
    tokenizer: made the pieces.
    directory: must not exist yet; it appears when it is complete.
    max_pieces: P.
    progress: called after each part with the number of passages so far.

  Raises:
    FileExistsError, ValueError, OSError: as `build_corpus` does.
  """
  counts = {"num_documents": 0, "num_empty": 0, "num_repeated": 0}
  with CorpusWriter(directory, tokenizer, max_pieces) as writer:
    for passages, found in parts:
      for name, count in found.items():
        counts[name] += count
      counts["num_repeated"] += add_passages(writer, passages)
      if progress:
        progress(writer.num_passages)
    if writer.num_passages == 0:
      raise ValueError(
        f"The source of {directory} has no passage: {counts['num_documents']} "
        f"documents, of which {counts['num_empty']} are without text."
      )
    writer.finish(counts)
  return PassageCorpus.open(directory)


def check_max_pieces(max_pieces: int) -> None:
  """Raises ValueError for a P that passages cannot have."""
  if not 8 <= max_pieces < 1 << 16:
    raise ValueError(f"max_pieces must be in 8..65535, got {max_pieces}.")
