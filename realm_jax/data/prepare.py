# SPDX-License-Identifier: Apache-2.0
"""`realm prepare-corpus` and `realm edit-corpus`: they show what they do."""

import itertools
import pathlib

import rich.console
from rich.progress import (
  Progress,
  SpinnerColumn,
  TextColumn,
  TimeElapsedColumn,
)

from realm_jax.data.corpus import PassageCorpus, build_corpus
from realm_jax.data.corpus_edits import (
  apply_edits,
  read_edits,
  unchanged_rows,
)
from realm_jax.data.corpus_writer import corpus_folder
from realm_jax.data.sources import read_documents
from realm_jax.data.tokenize import (
  TOKENIZER_FILE,
  Tokenizer,
  load_tokenizer,
  train_tokenizer,
)

_VOCABULARY_DOCUMENTS = 200_000  # Plenty for its statistics; fits memory.


def prepare_corpus(
  *,
  source: str,
  output: str,
  tokenizer_name: str,
  train_vocabulary: int,
  max_pieces: int,
) -> None:
  """Builds a corpus, and first its vocabulary if one is to be trained.

  Args:
    source: as `read_documents` takes it.
    output: the corpus' directory; must not exist.
    tokenizer_name: folder or Hugging Face name; with `train_vocabulary`, the
      folder to write.
    train_vocabulary: its size, or 0 to load a tokenizer.
    max_pieces: P.

  Raises:
    FileExistsError: the corpus, or the tokenizer to be trained, is there.
    ValueError, OSError: as `read_documents` and `build_corpus` raise them.
  """
  _check_free(output)
  columns = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    TimeElapsedColumn(),
  )
  with Progress(*columns) as bar:
    task = bar.add_task("Tokenizer")
    if train_vocabulary:
      tokenizer = _train(source, tokenizer_name, train_vocabulary)
    else:
      tokenizer = load_tokenizer(tokenizer_name)

    def show(num_passages: int) -> None:
      bar.update(task, description=f"Corpus: {num_passages:,} passages")

    show(0)
    corpus = build_corpus(
      read_documents(source), tokenizer, output, max_pieces, show
    )
  print(_description(corpus))


def edit_corpus(*, corpus: str, edits: str, output: str) -> None:
  """Writes an edited corpus and prints what changed.

  Args:
    corpus: the directory of the one to start from.
    edits: a JSONL file, as `read_edits` takes it.
    output: the new corpus' directory; must not exist.

  Raises:
    FileExistsError: `output` is there.
    ValueError, OSError: as `read_edits` and `apply_edits` raise them.
  """
  _check_free(output)
  before = PassageCorpus.open(corpus)
  with rich.console.Console().status("Editing"):
    changes = read_edits(before, edits)
    after = apply_edits(before, changes, output)
    old_rows = unchanged_rows(before.passage_hashes, after.passage_hashes)
  print(
    f"Documents: {len(changes.added):,} added, {len(changes.replaced):,} "
    f"replaced, {len(changes.removed):,} removed. Passages unchanged: "
    f"{(old_rows >= 0).sum():,} of {len(after):,}."
  )
  print(_description(after))


def _check_free(output: str) -> None:
  if corpus_folder(output).exists():
    raise FileExistsError(
      f"{output} exists, and a corpus is final: remove it, or choose another "
      "name."
    )


def _description(corpus: PassageCorpus) -> str:
  lengths = corpus.lengths
  return (
    f"{corpus.directory}: {len(corpus):,} passages, {lengths.sum():,} word "
    f"pieces, {lengths.mean():.0f} a passage; fingerprint "
    f"{corpus.fingerprint[:12]}."
  )


def _train(source: str, folder: str, vocab_size: int) -> Tokenizer:
  if (pathlib.Path(folder) / TOKENIZER_FILE).exists():
    raise FileExistsError(
      f"{folder} has a {TOKENIZER_FILE}: leave out --train_vocabulary to use "
      "it, or name another folder."
    )
  sample = itertools.islice(read_documents(source), _VOCABULARY_DOCUMENTS)
  texts = (f"{document.title}\n{document.text}" for document in sample)
  return train_tokenizer(texts, vocab_size, folder)
