# SPDX-License-Identifier: Apache-2.0
"""A corpus whose passage i is another program's block i, and stays it."""

from collections.abc import Callable, Iterable
import os

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_writer import CorpusWriter, corpus_folder
from realm_jax.data.passages import EncodedDocument, encode_documents
from realm_jax.data.records import Document, Passage
from realm_jax.data.splitting import (
  pack_sentences,
  piece_bounds,
  split_sentences,
)
from realm_jax.data.tokenize import Tokenizer

_NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]


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
  with CorpusWriter(corpus_folder(directory), tokenizer, max_pieces) as writer:
    for batch in encode_documents(blocks, tokenizer):
      for encoded in batch:
        num_cut += _add_block(writer, encoded)
      if progress:
        progress(writer.num_passages)
    writer.finish({"num_documents": writer.num_passages, "num_cut": num_cut})
  return PassageCorpus.open(directory)


def _add_block(writer: CorpusWriter, encoded: EncodedDocument) -> bool:
  """Adds a block; returns whether it was too long."""
  block, title, text = encoded
  if not len(text):
    raise ValueError(
      f"{block.origin}: a block without text cannot be a passage, and the "
      "vectors count it."
    )
  title_ids = title.ids[: (writer.max_pieces - _NUM_SPECIALS) // 2]
  budget = writer.max_pieces - _NUM_SPECIALS - len(title_ids)
  bounds = piece_bounds(text, split_sentences(block.text))
  cuts = next(pack_sentences(text, bounds, budget))
  stop = int(cuts[-1])
  writer.add(
    Passage(
      uid=block.uid,
      title=block.title,
      text=block.text[text.starts[0] : text.ends[stop - 1]],
    ),
    title_ids,
    text.ids[:stop],
    cuts[:-1],
    starts_document=True,
  )
  return stop < len(text)
