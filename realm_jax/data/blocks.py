# SPDX-License-Identifier: Apache-2.0
"""A corpus whose passage i is another program's block i, and stays it."""

from collections.abc import Callable, Iterable
import os

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_writer import CorpusWriter
from realm_jax.data.passages import (
  EncodedDocument,
  cut_document,
  encode_documents,
)
from realm_jax.data.records import Document
from realm_jax.data.tokenize import Tokenizer


def build_block_corpus(
  blocks: Iterable[Document],
  tokenizer: Tokenizer,
  directory: str | os.PathLike[str],
  max_pieces: int,
  progress: Callable[[int], None] | None = None,
) -> PassageCorpus:
  """Stores each block as one passage: none is split, left out or merged.

  A block that is too long loses its last sentences; where its first is too
  long by itself, it is cut between two words.

  Args:
    blocks: read once, in order, with uids.
    tokenizer: makes the pieces.
    directory: must not exist yet; it appears when it is complete.
    max_pieces: P, pieces of a passage with its title and special tokens.
    progress: called now and then with the number of passages so far.

  Raises:
    FileExistsError: `directory` is there.
    ValueError: a block has no text; and what reading `blocks` raises.
    OSError: the files cannot be written. In no case is anything left behind.
  """
  num_cut = 0
  with CorpusWriter(directory, tokenizer, max_pieces) as writer:
    for batch in encode_documents(blocks, tokenizer):
      for encoded in batch:
        num_cut += _add_block(writer, encoded)
      if progress:
        progress(writer.num_passages)
    writer.finish({"num_documents": writer.num_passages, "num_cut": num_cut})
  return PassageCorpus.open(directory)


def _add_block(writer: CorpusWriter, encoded: EncodedDocument) -> bool:
  """Adds a block; returns whether it was too long."""
  if not len(encoded.text):
    raise ValueError(
      f"{encoded.document.origin}: a block without text cannot be a passage, "
      "and the vectors count it."
    )
  stored = next(cut_document(encoded, writer.format)).stored
  writer.append(stored)
  return len(stored.pieces) - stored.title_length < len(encoded.text)
