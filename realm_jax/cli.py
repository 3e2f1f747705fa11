# SPDX-License-Identifier: Apache-2.0
"""`realm <command> --flag=value …`: what one process of a job runs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import json
import logging
import sys
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Command:
  """One command: its flags are defined only when it is the one asked for."""

  summary: str
  define_flags: Callable[[], None]
  run: Callable[[list[str]], int]
  computes: bool = False  # By JAX, batch after batch.


def _workdir_flag() -> None:
  flags.DEFINE_string("workdir", None, "The run's directory.", required=True)


def _config_flag(what: str) -> None:
  config_flags.DEFINE_config_file("config", None, what)
  flags.mark_flag_as_required("config")


def _searched_corpus_flag() -> None:
  flags.DEFINE_string("corpus", "", "Search this corpus, not the run's.")


def _json_flag() -> None:
  flags.DEFINE_bool("json", False, "Print JSON instead of a page of text.")


def _process_flags(
  what: str, number: int | None = 1, process: int | None = 0
) -> None:
  flags.DEFINE_integer(
    "num_processes", number, f"How many processes {what}.", lower_bound=1
  )
  flags.DEFINE_integer(
    "process_id", process, "Which of them this one is, from 0.", lower_bound=0
  )


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
  _no_more(args)
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
  _no_more(args)
  from realm_jax.data import prepare

  prepare.edit_corpus(
    corpus=FLAGS.corpus, edits=FLAGS.edits, output=FLAGS.output
  )
  return 0


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
  _no_more(args)
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
  _process_flags("share the work")


def _tag_spans(args: list[str]) -> int:
  _no_more(args)
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


def _use_corpus_flags() -> None:
  _workdir_flag()
  flags.DEFINE_string(
    "corpus", None, "Corpus directory to go over to.", required=True
  )
  flags.DEFINE_integer(
    "from_step",
    None,
    "First checkpoint whose index is over it; by default as soon as may be.",
  )


def _use_corpus(args: list[str]) -> int:
  _no_more(args)
  from realm_jax.index import move

  made = move.use_corpus(FLAGS.workdir, FLAGS.corpus, FLAGS.from_step)
  print(
    f"Corpus {made.number}, {made.directory}: from checkpoint "
    f"{made.from_step} on, indexes are over it."
  )
  return 0


def _train_flags() -> None:
  _workdir_flag()
  _config_flag("The experiment's file.")
  flags.DEFINE_list(
    "may_differ",
    [],
    "Config keys in which a resumed run may differ, beside those that any may: "
    "mesh and optimizer.accumulate_steps.",
  )
  flags.DEFINE_string(
    "coordinator",
    "",
    "host:port of process 0, where several processes train one run; by "
    "default SLURM, Cloud TPU or JAX_COORDINATOR_ADDRESS says so.",
  )
  _process_flags("train the run; by default what those say", None, None)
  flags.DEFINE_float(
    "peer_wait_seconds",
    600.0,
    "How long a process waits for the others, when it joins them and at each "
    "step, before it ends with an error that names those that are missing.",
    lower_bound=1.0,
  )


def _train(args: list[str]) -> int:
  _no_more(args)
  from realm_jax import cluster, config, hosts, sharding, workdir
  from realm_jax.train import loop, stop

  run = config.parse(FLAGS.config)
  group = cluster.find_group(
    FLAGS.coordinator,
    FLAGS.num_processes,
    FLAGS.process_id,
    wait_seconds=FLAGS.peer_wait_seconds,
  )
  with hosts.joined(group, FLAGS.peer_wait_seconds):
    # A run must not come to be of a shape that it cannot have.
    sharding.check_batch(run, sharding.make_mesh(run.mesh))
    if hosts.is_lead():
      workdir.claim(FLAGS.workdir, run, FLAGS.may_differ)
    hosts.check_same("config", config.dumps(run))
    if loop.train(run, FLAGS.workdir):
      return 0
    if hosts.is_lead():
      print(
        f"Stopped on request; {FLAGS.workdir} is saved. The same command "
        "goes on.",
        file=sys.stderr,
      )
    return stop.STOPPED_EXIT_CODE


def _plan_flags() -> None:
  _config_flag("The experiment's file.")
  flags.DEFINE_string(
    "devices",
    None,
    "<kind>:<count> to train on, such as h100:64, v5p:128 (chips) or cpu:8; "
    "realm_jax/plan/devices.toml has the kinds. Activations are as XLA for a "
    "CPU lays them out, which fuses less: for others an upper estimate.",
    required=True,
  )
  flags.DEFINE_string(
    "builder_devices", "", "<kind>:<count> that embed; by default as many more."
  )
  flags.DEFINE_integer(
    "passages",
    0,
    "Passages to plan the index for; 0 for the corpus' own, or Wikipedia's "
    "13,353,718 where there is no corpus yet.",
    lower_bound=0,
  )
  flags.DEFINE_float(
    "efficiency",
    0.4,
    "Share of the peak FLOP/s that matrix products reach; an assumption, to be "
    "replaced by your own measurement.",
    lower_bound=0.01,
    upper_bound=1.0,
  )


def _plan(args: list[str]) -> int:
  _no_more(args)
  from realm_jax import config
  from realm_jax.plan import command

  fits = command.run_plan(
    config.parse(FLAGS.config),
    devices=FLAGS.devices,
    builder_devices=FLAGS.builder_devices,
    passages=FLAGS.passages,
    efficiency=FLAGS.efficiency,
  )
  return 0 if fits else 1


def _build_index_flags() -> None:
  _workdir_flag()
  flags.DEFINE_bool(
    "watch", False, "Go on with every new checkpoint until training is done."
  )
  flags.DEFINE_string("corpus", "", "Index this corpus instead of the run's.")


def _build_index(args: list[str]) -> int:
  _no_more(args)
  from realm_jax.index import builder

  builder.build_index(FLAGS.workdir, watch=FLAGS.watch, corpus=FLAGS.corpus)
  return 0


def _evaluate_flags() -> None:
  _workdir_flag()
  flags.DEFINE_string(
    "questions",
    "",
    "Questions to score a run on: JSONL (.gz too) of {question, answers or "
    "answers_regex, passage_id?}, or tfds:<set>/<split>; of a run that is not "
    "openqa, the retriever alone is scored.",
  )
  flags.DEFINE_string(
    "texts", "", "Masked texts instead: JSONL of {text, spans, passage_uid?}."
  )
  flags.DEFINE_string(
    "predictions",
    "",
    "File to write, JSONL with evidence; its figures go beside it. By default "
    "evaluation.jsonl in the workdir, where the report looks.",
  )
  _searched_corpus_flag()
  flags.DEFINE_integer("limit", 0, "Use the first so many lines; 0 for all.")
  flags.DEFINE_enum(
    "retriever",
    "",
    ["", "dense", "bm25", "hybrid", "gold"],
    "What finds passages for questions; by default what the run trained with. "
    "'gold' has the reader read those that questions name.",
  )
  _read_flag()


def _evaluate(args: list[str]) -> int:
  _no_more(args)
  from realm_jax.eval import evaluate

  figures = evaluate.evaluate(
    FLAGS.workdir,
    questions=FLAGS.questions,
    texts=FLAGS.texts,
    predictions=FLAGS.predictions,
    corpus=FLAGS.corpus,
    limit=FLAGS.limit,
    retriever=FLAGS.retriever,
    read=FLAGS.read,
  )
  # For programs: one line, the last.
  print(json.dumps(figures, ensure_ascii=False))
  return 0


def _table_flags() -> None:
  flags.DEFINE_string("workdir", None, "The table's directory.", required=True)
  _config_flag("The table's file.")


def _table(args: list[str]) -> int:
  _no_more(args)
  from launch import cells, table

  cells.run_table(table.parse(FLAGS.config), FLAGS.workdir)
  return 0


def _ask_flags() -> None:
  _workdir_flag()
  _searched_corpus_flag()
  _json_flag()
  _read_flag()


def _read_flag() -> None:
  flags.DEFINE_integer(
    "read",
    0,
    "Passages to read for each question, more than in training perhaps; 0 for "
    "openqa.read.",
    lower_bound=0,
  )


def _ask(args: list[str]) -> int:
  from realm_jax.eval import open_qa

  answerer = open_qa.open_answerer(
    FLAGS.workdir, corpus=FLAGS.corpus, read=FLAGS.read
  )
  answers = (
    answerer.answer(args) if args else answerer.converse(_lines("question: "))
  )
  _print_each(answers, open_qa.show)
  return 0


def _probe_flags() -> None:
  _workdir_flag()
  flags.DEFINE_multi_string(
    "passage",
    [],
    "A text to take in place of what a search finds, once or several times.",
  )
  flags.DEFINE_integer(
    "candidates",
    0,
    "Passages, the null document included; of an openqa run, passages to read. "
    "0 for as many as in training.",
    lower_bound=0,
  )
  _searched_corpus_flag()
  flags.DEFINE_integer("step", 0, "Of the checkpoint; 0 for the newest.")
  _json_flag()


def _probe(args: list[str]) -> int:
  from realm_jax.eval import probe, probe_page

  # Those given are checked before anything is opened.
  texts = [probe.parse(text) for text in args]
  probed = probe.probe(
    FLAGS.workdir,
    texts or map(probe.parse, _lines("text: ")),
    passages=FLAGS.passage,
    candidates=FLAGS.candidates,
    corpus=FLAGS.corpus,
    step=FLAGS.step,
  )
  _print_each(probed, probe_page.show)
  return 0


def _print_each(found: Iterable[Any], show: Callable[[Any], None]) -> None:
  """Prints dataclasses as they come, as `--json` asks."""
  for each in found:
    if FLAGS.json:
      line = json.dumps(dataclasses.asdict(each), ensure_ascii=False)
      print(line, flush=True)
    else:
      show(each)


def _lines(prompt: str) -> Iterator[str]:
  """Yields the lines of the standard input that are not empty."""
  while True:
    if sys.stdin.isatty():
      print(prompt, end="", file=sys.stderr, flush=True)
    if not (line := sys.stdin.readline()):
      return
    if text := line.strip():
      yield text


def _export_flags() -> None:
  _workdir_flag()
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
  _no_more(args)
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


def _report(args: list[str]) -> int:
  _no_more(args)
  from realm_jax.eval import report

  print(report.write_report(FLAGS.workdir))
  return 0


def _index(args: list[str]) -> int:
  from realm_jax.index import listing

  actions = {
    "list": listing.list_index,
    "verify": listing.verify_index,
    "prune": listing.prune_index,
  }
  if len(args) != 1 or args[0] not in actions:
    raise ValueError(
      f"Say which of {', '.join(actions)}, got {args}: for example `realm "
      "index list --workdir=…`."
    )
  if deleted := actions[args[0]](FLAGS.workdir):
    print(f"Deleted {', '.join(deleted)}.")
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
  "import": Command(
    "make a finished run of published models, passages and vectors",
    _import_flags,
    _import,
    computes=True,
  ),
  "tag-spans": Command(
    "mark the names and dates of texts, for pre-training to mask",
    _tag_spans_flags,
    _tag_spans,
  ),
  "use-corpus": Command(
    "have a run go over to another corpus, training or not",
    _use_corpus_flags,
    _use_corpus,
  ),
  "plan": Command(
    "say what a run needs of memory, network and time, and whether it fits",
    _plan_flags,
    _plan,
  ),
  "train": Command(
    "train a stage (ict, dpr, mlm, realm, openqa), or go on with it",
    _train_flags,
    _train,
    computes=True,
  ),
  "build-index": Command(
    "embed the corpus from the newest checkpoint and publish an index",
    _build_index_flags,
    _build_index,
    computes=True,
  ),
  "index": Command(
    "list, verify or prune a run's index versions", _workdir_flag, _index
  ),
  "evaluate": Command(
    "score a run on questions or on masked texts",
    _evaluate_flags,
    _evaluate,
    computes=True,
  ),
  "table": Command(
    "train and score the rows of a table, or go on with it",
    _table_flags,
    _table,
  ),
  "ask": Command(
    "answer questions, with evidence: those given, or one a line of the input",
    _ask_flags,
    _ask,
    computes=True,
  ),
  "probe": Command(
    "tell how likely a text's marked span is, beside each passage found",
    _probe_flags,
    _probe,
    computes=True,
  ),
  "export": Command(
    "write a run's models and vectors for other programs",
    _export_flags,
    _export,
  ),
  "report": Command("write report/report.html", _workdir_flag, _report),
}


def _no_more(args: Sequence[str]) -> None:
  if args:
    raise ValueError(f"Unknown arguments {list(args)}; flags start with --.")


def _usage() -> str:
  lines = ["usage: realm <command> --flag=value …", ""]
  lines += [f"  {name:15} {c.summary}" for name, c in COMMANDS.items()]
  lines += ["", "realm <command> --help lists a command's flags."]
  return "\n".join(lines)


def main() -> None:
  """Runs a command; the exit code is 0, 1 (failed), 2 (usage) or 75.

  75 means that training stopped on SIGTERM after saving.
  """
  name = sys.argv[1] if len(sys.argv) > 1 else ""
  if name in ("-h", "--help", "help"):
    print(_usage())
    return
  if name not in COMMANDS:
    print(_usage(), file=sys.stderr)
    sys.exit(2)
  command = COMMANDS[name]
  command.define_flags()
  app.run(
    lambda argv: _guarded(name, command, argv[1:]),
    argv=[f"realm {name}", *sys.argv[2:]],
  )


def _guarded(name: str, command: Command, args: list[str]) -> int:
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(
    absl_logging.DEBUG if FLAGS.verbosity > 0 else absl_logging.ERROR
  )
  logging.getLogger("realm_jax").setLevel(logging.INFO)
  if command.computes:
    from realm_jax import allocator

    allocator.keep_freed_memory()
  try:
    return command.run(args)
  except (ValueError, OSError, ImportError) as error:
    if FLAGS.verbosity > 0:
      raise
    print(f"realm {name}: {error}", file=sys.stderr)
    print("(--verbosity=1 shows the traceback)", file=sys.stderr)
    return 1


if __name__ == "__main__":
  main()
