# SPDX-License-Identifier: Apache-2.0
"""What makes corpora, marks their spans, and changes them."""

from absl import flags

from realm_jax.commands.command import (
  Command,
  no_more,
  process_flags,
  workdir_flag,
)

FLAGS = flags.FLAGS


def _corpus_flags() -> None:
  flags.DEFINE_string(
    "source",
    None,
    "What to read: 'factbook', a .jsonl, .parquet or .txt file (.gz too), a "
    "MediaWiki dump (.xml, .xml.bz2), tfds:wikipedia/<config>/<split>, or "
    "ORQA's blocks.tfr with titles.tfr beside it.",
    required=True,
  )
  flags.DEFINE_string(
    "output", None, "Corpus directory to make.", required=True
  )
  flags.DEFINE_string(
    "tokenizer",
    None,
    "Folder or Hugging Face name of a BERT-style tokenizer; with "
    "--train_vocabulary the folder to write it to.",
    required=True,
  )
  flags.DEFINE_integer(
    "train_vocabulary",
    0,
    "Train a lower-cased WordPiece vocabulary of this size on the source.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "max_pieces", 288, "Longest passage, title and special tokens included."
  )
  flags.DEFINE_integer(
    "workers", 0, "Processes that cut documents; 0: one a core.", lower_bound=0
  )
  flags.DEFINE_list(
    "beam",
    [],
    "Cut them by an Apache Beam pipeline with these options instead, such as "
    "--beam=--runner=FlinkRunner,--flink_master=host:8081.",
  )


def _prepare_corpus(args: list[str]) -> int:
  no_more(args)
  from realm_jax.data import prepare

  prepare.prepare_corpus(
    source=FLAGS.source,
    output=FLAGS.output,
    tokenizer_name=FLAGS.tokenizer,
    train_vocabulary=FLAGS.train_vocabulary,
    max_pieces=FLAGS.max_pieces,
    workers=FLAGS.workers,
    beam=FLAGS.beam,
  )
  return 0


def _edit_corpus_flags() -> None:
  flags.DEFINE_string(
    "corpus", None, "Corpus directory to start from.", required=True
  )
  flags.DEFINE_string(
    "edits",
    None,
    "JSONL (.gz too): {uid, title, text} adds a document or replaces the one "
    "of this uid, {uid, remove: true} removes it.",
    required=True,
  )
  flags.DEFINE_string(
    "output", None, "Corpus directory to make.", required=True
  )


def _edit_corpus(args: list[str]) -> int:
  no_more(args)
  from realm_jax.data import prepare

  prepare.edit_corpus(
    corpus=FLAGS.corpus, edits=FLAGS.edits, output=FLAGS.output
  )
  return 0


def _use_corpus_flags() -> None:
  workdir_flag()
  flags.DEFINE_string(
    "corpus", None, "Corpus directory to go over to.", required=True
  )
  flags.DEFINE_integer(
    "from_step",
    None,
    "First checkpoint whose index is over it; by default as soon as may be.",
  )


def _use_corpus(args: list[str]) -> int:
  no_more(args)
  from realm_jax.index import move

  made = move.use_corpus(FLAGS.workdir, FLAGS.corpus, FLAGS.from_step)
  print(
    f"Corpus {made.number}, {made.directory}: from checkpoint "
    f"{made.from_step} on, indexes are over it."
  )
  return 0


def _tag_spans_flags() -> None:
  flags.DEFINE_string(
    "corpus", "", "Corpus directory whose passages are tagged."
  )
  flags.DEFINE_string(
    "source", "", "Or documents to tag, as prepare-corpus reads them."
  )
  flags.DEFINE_string("output", None, "Folder to make.", required=True)
  flags.DEFINE_string(
    "tagger",
    None,
    "Folder or Hugging Face name of a BERT for token classification (CoNLL-"
    "2003's labels, say), 'spacy:<pipeline>', or 'rules'.",
    required=True,
  )
  flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Of the BERT's activations; bfloat16 is for accelerators.",
  )
  flags.DEFINE_integer(
    "part_texts", 10_000, "Texts in each file.", lower_bound=1
  )
  process_flags("share the work")


def _tag_spans(args: list[str]) -> int:
  no_more(args)
  from realm_jax.tagging import command

  command.run(
    source=FLAGS.source,
    corpus=FLAGS.corpus,
    output=FLAGS.output,
    tagger=FLAGS.tagger,
    dtype=FLAGS.dtype,
    part_texts=FLAGS.part_texts,
    process_id=FLAGS.process_id,
    num_processes=FLAGS.num_processes,
  )
  return 0


COMMANDS = {
  "prepare-corpus": Command(
    "read documents, cut them into passages, tokenize them",
    _corpus_flags,
    _prepare_corpus,
  ),
  "edit-corpus": Command(
    "make a corpus with documents added, replaced and removed",
    _edit_corpus_flags,
    _edit_corpus,
  ),
  "use-corpus": Command(
    "have a run go over to another corpus, training or not",
    _use_corpus_flags,
    _use_corpus,
  ),
  "tag-spans": Command(
    "mark the names and dates of texts, for pre-training to mask",
    _tag_spans_flags,
    _tag_spans,
  ),
}
