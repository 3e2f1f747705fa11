# SPDX-License-Identifier: Apache-2.0
"""What takes published models in, and gives trained ones out."""

from absl import flags

from realm_jax.commands.command import Command, no_more, workdir_flag

FLAGS = flags.FLAGS


def _import_flags() -> None:
  flags.DEFINE_list(
    "source",
    None,
    "Folders or Hugging Face names of REALM's models (google/realm-orqa-nq-"
    "openqa, say), or checkpoints of TensorFlow, whose parts are put together.",
    required=True,
  )
  flags.DEFINE_string("workdir", None, "Directory to make.", required=True)
  flags.DEFINE_string(
    "blocks",
    "",
    "Texts of the vectors' blocks, if not the source's own: block_records.npy, "
    "or blocks.tfr with titles.tfr beside it.",
  )
  flags.DEFINE_string("corpus", "", "A corpus, in place of any blocks.")
  flags.DEFINE_string(
    "tokenizer", "", "Folder or Hugging Face name, if not the source's own."
  )


def _import(args: list[str]) -> int:
  no_more(args)
  from realm_jax.exchange import import_run, sources

  run = import_run.import_run(
    [sources.read_source(name) for name in FLAGS.source],
    FLAGS.workdir,
    blocks=FLAGS.blocks,
    corpus=FLAGS.corpus,
    tokenizer=FLAGS.tokenizer,
  )
  print(f"{FLAGS.workdir} is a finished run of stage {run.stage!r}.")
  return 0


def _export_flags() -> None:
  workdir_flag()
  flags.DEFINE_string("output", None, "Folder to make.", required=True)
  flags.DEFINE_integer("step", 0, "Of the checkpoint; 0 for the newest.")
  flags.DEFINE_multi_enum(
    "part",
    [],
    ["retriever", "encoder", "reader", "embeddings", "params"],
    "What to write, once or several times; by default all that there is.",
  )
  flags.DEFINE_enum(
    "vectors", "npy", ["npy", "safetensors"], "File format of the embeddings."
  )


def _export(args: list[str]) -> int:
  no_more(args)
  from realm_jax.exchange import export_run

  written = export_run.export_run(
    FLAGS.workdir,
    FLAGS.output,
    step=FLAGS.step,
    parts=tuple(FLAGS.part),
    vector_format=FLAGS.vectors,
  )
  print(f"{FLAGS.output}: {', '.join(written)}")
  return 0


COMMANDS = {
  "import": Command(
    "make a finished run of published models, passages and vectors",
    _import_flags,
    _import,
    computes=True,
  ),
  "export": Command(
    "write a run's models and vectors for other programs",
    _export_flags,
    _export,
  ),
}
