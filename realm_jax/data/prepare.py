# SPDX-License-Identifier: Apache-2.0
"""`realm prepare-corpus` and `realm edit-corpus`: they show what they do."""

from collections.abc import Sequence
import functools
import itertools
import os
import pathlib

from etils import epath
import rich.console
from rich.progress import (
  Progress,
  SpinnerColumn,
  TextColumn,
  TimeElapsedColumn,
)

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import check_max_pieces
from realm_jax.data.corpus_edits import (
  apply_edits,
  read_edits,
  unchanged_rows,
)
from realm_jax.data.corpus_writer import check_free
from realm_jax.data.parts import assemble, begin, parts_folder, read_chunks
from realm_jax.data.sources import read_documents, source_files
from realm_jax.data.tokenize import (
  TOKENIZER_FILE,
  Tokenizer,
  load_tokenizer,
  train_tokenizer,
)
from realm_jax.data.workers import make_parts
from realm_jax.mirror import is_copied

_VOCABULARY_DOCUMENTS = 200_000  # Plenty for its statistics; fits memory.


def prepare_corpus(
  *,
  source: str,
  output: str,
  tokenizer_name: str,
  train_vocabulary: int,
  max_pieces: int,
  workers: int = 0,
  beam: Sequence[str] = (),
) -> None:
  """Builds a corpus, and first its vocabulary if one is to be trained.

  A call that was killed is gone on with by the same call; but a vocabulary is
  trained once, and then loaded.

  Args:
    source: as `read_documents` takes it.
    output: the corpus' directory; must not exist.
    tokenizer_name: folder or Hugging Face name; with `train_vocabulary`, the
      folder to write.
    train_vocabulary: its size, or 0 to load a tokenizer.
    max_pieces: P.
    workers: processes that cut documents, beside this one; 0 for one a core.
    beam: options of an Apache Beam pipeline that cuts them instead.

  Raises:
    FileExistsError: the corpus, or the tokenizer to be trained, is there.
    ValueError, OSError: as `begin`, `make_parts` and `assemble` raise them.
  """
  check_free(output)
  if beam and is_copied(output):
    raise ValueError(
      f"--beam's workers share a folder beside --output, and {output} is sent "
      "from this host: give a path that all of them see, and copy the corpus "
      "when it is complete."
    )
  check_max_pieces(max_pieces)
  facts = {"source": source_files(source)}
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

    def show(what: str, num_passages: int) -> None:
      bar.update(task, description=f"{what}: {num_passages:,} passages")

    folder = parts_folder(output)
    begin(folder, tokenizer, max_pieces, facts)
    names = (
      _beam_parts(source, folder, max_pieces, beam)
      if beam
      else make_parts(
        read_chunks(source),
        folder,
        max_pieces,
        workers or os.cpu_count() or 1,
        functools.partial(show, "Cutting"),
      )
    )
    corpus = assemble(
      folder, names, output, max_pieces, functools.partial(show, "Corpus")
    )
  print(_description(corpus))


def _beam_parts(
  source: str, folder: pathlib.Path, max_pieces: int, options: Sequence[str]
) -> list[str]:
  try:
    from realm_jax.data import beam_parts
  except ImportError as error:
    raise ValueError(
      f"--beam needs Apache Beam ({error}): pip install 'realm-jax[beam]'."
    ) from error
  return beam_parts.make_parts(source, folder, max_pieces, options)


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
  check_free(output)
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


def _description(corpus: PassageCorpus) -> str:
  lengths = corpus.lengths
  return (
    f"{corpus.directory}: {len(corpus):,} passages, {lengths.sum():,} word "
    f"pieces, {lengths.mean():.0f} a passage; fingerprint "
    f"{corpus.fingerprint[:12]}."
  )


def _train(source: str, folder: str, vocab_size: int) -> Tokenizer:
  if (epath.Path(folder) / TOKENIZER_FILE).exists():
    raise FileExistsError(
      f"{folder} has a {TOKENIZER_FILE}: leave out --train_vocabulary to use "
      "it, or name another folder."
    )
  sample = itertools.islice(read_documents(source), _VOCABULARY_DOCUMENTS)
  texts = (f"{document.title}\n{document.text}" for document in sample)
  return train_tokenizer(texts, vocab_size, folder)
