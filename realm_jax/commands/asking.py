# SPDX-License-Identifier: Apache-2.0
"""What answers what is typed."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import json
import sys
from typing import Any

from absl import flags

from realm_jax.commands.command import (
  Command,
  json_flag,
  read_flag,
  searched_corpus_flag,
  workdir_flag,
)

FLAGS = flags.FLAGS


def _ask_flags() -> None:
  workdir_flag()
  searched_corpus_flag()
  json_flag()
  read_flag()


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
  workdir_flag()
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
  searched_corpus_flag()
  flags.DEFINE_integer("step", 0, "Of the checkpoint; 0 for the newest.")
  json_flag()


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


COMMANDS = {
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
}
