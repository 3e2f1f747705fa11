# SPDX-License-Identifier: Apache-2.0
"""`realm probe`: what a run makes of a text with one span marked.

"... because 3 is a [[Fermat]] prime." (REALM, table 3): how likely the span
is without a passage, beside each, and with all of those found; in nats, how
much that helps (REALM, section 5.2).
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import re

import numpy as np

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.masking import pieces_of
from realm_jax.data.records import MaskedText
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.eval import masked_spans
from realm_jax.eval.closed_book import ClosedBookAnswerer
from realm_jax.eval.given_passages import check_room, passages_given
from realm_jax.eval.predictions import SpanPrediction
from realm_jax.eval.probe_answers import AnswerProber, probe_closed_book
from realm_jax.eval.retriever import Retriever
from realm_jax.eval.span_filler import MaskedSpan, SpanFiller, mask_first_span
from realm_jax.index.corpora import open_corpora

_MARKED = re.compile(r"\[\[(.*?)\]\]")
_EXAMPLE = "'The capital of Peru is [[Lima]].'"


def parse(text: str) -> MaskedText:
  """Reads a text whose true span stands in double brackets.

  Raises:
    ValueError: there is no such span, an empty one, or several.
  """
  parts = _MARKED.split(text)
  if len(parts) != 3 or "[[" in parts[1] or not parts[1].strip():
    raise ValueError(
      f"{text!r} marks {len(parts) // 2} spans, and a probe is of one that is "
      f"not empty. Put the true span in double brackets: {_EXAMPLE}"
    )
  before, marked, after = parts
  start = len(before) + len(marked) - len(marked.lstrip())
  return MaskedText(
    text=before + marked + after,
    spans=((start, start + len(marked.strip())),),
  )


def probe(
  workdir: str,
  texts: Iterable[MaskedText],
  *,
  passages: Sequence[str] = (),
  candidates: int = 0,
  corpus: str = "",
  step: int = 0,
) -> Iterator[SpanPrediction]:
  """Yields what a checkpoint makes of each text, as they come.

  Args:
    workdir: of a run.
    texts: with one span each, as `parse` returns them.
    passages: texts to take in place of those that a search finds; then no
      index is needed.
    candidates: K, the null document's place included; 0 for
      retrieval.num_candidates. Of an openqa run, passages to read; 0 for
      openqa.read.
    corpus: directory of a corpus to search, as `evaluate` takes it.
    step: of the checkpoint; 0 for the newest.

  Raises:
    FileNotFoundError: no config, checkpoint or index.
    ValueError: a span that is cut or too long, a passage that is too long, or
      arguments that do not go together or with the run.
  """
  run = workdirs.load(workdir)
  _check_arguments(workdir, run, passages, candidates, corpus)
  step = step or checkpoints.newest_step(workdir)
  tokenizer = load_tokenizer(run.data.tokenizer)
  if run.is_closed_book:
    answerer = ClosedBookAnswerer.open(workdir, step=step)
    yield from probe_closed_book(answerer, texts, run, tokenizer)
    return
  with passages_given(passages, run, tokenizer) as given:
    if run.stage == "openqa":
      prober = AnswerProber(
        workdir,
        step,
        run,
        tokenizer,
        num_read=len(passages) or candidates or run.openqa.read,
        given=given,
        corpus=corpus,
      )
      yield from map(prober.probe, texts)
    else:
      if passages or candidates:
        number = len(passages) + 1 if passages else candidates
        retrieval = dataclasses.replace(run.retrieval, num_candidates=number)
        run = dataclasses.replace(run, retrieval=retrieval)
      yield from _probe_spans(
        workdir, step, run, tokenizer, texts, given, corpus
      )


def _check_arguments(
  workdir: str,
  run: RunConfig,
  passages: Sequence[str],
  candidates: int,
  corpus: str,
) -> None:
  asked = {
    "passage": list(passages),
    "candidates": candidates,
    "corpus": corpus,
  }
  flags = [f"--{name}={value}" for name, value in asked.items() if value]
  if run.is_closed_book and flags:
    raise ValueError(
      f"{workdir} answers closed book (openqa.retriever='none'): it reads no "
      f"passages, so leave out {', '.join(flags)}."
    )
  if passages and len(flags) > 1:
    raise ValueError(
      f"{flags[0]} is taken in place of a search: leave out "
      f"{', '.join(flags[1:])}."
    )
  if candidates == 1 and run.stage != "openqa":
    raise ValueError(
      "--candidates=1 leaves the null document alone: give 2 or more, or 0 "
      "for as many as in training."
    )


def _probe_spans(
  workdir: str,
  step: int,
  run: RunConfig,
  tokenizer: Tokenizer,
  texts: Iterable[MaskedText],
  given: PassageCorpus | None,
  corpus: str,
) -> Iterator[SpanPrediction]:
  """Probes a run of any stage but openqa."""
  retriever = None
  if given is None:
    corpora = open_corpora(workdir, run, corpus)
    passages = corpora.open(corpora.moves()[0])
    if run.has_retriever:
      retriever = Retriever(workdir, run, corpora, tokenizer)
      passages = retriever.version.corpus
  else:
    passages = given
  lengths = np.arange(3, run.lengths.query + 1)  # They come one by one.
  filler = SpanFiller(
    workdir, step, run, passages, tokenizer, lengths, batch_size=1
  )
  for text in texts:
    span = mask_whole_span(text, run, tokenizer)
    rows = None
    if retriever:
      rows = masked_spans.find_passages(
        retriever, [span], run, passages, tokenizer
      )
    elif given is not None:
      rows = np.arange(len(given), dtype=np.int32)[None]
      check_room(len(span.masked.ids), given, run)
    yield from filler.fill([span], rows)


def mask_whole_span(
  text: MaskedText, run: RunConfig, tokenizer: Tokenizer
) -> MaskedSpan:
  """Masks a text's only span, whose pieces are all predicted.

  Raises:
    ValueError: they cannot be: it cuts a piece, lies beyond the query's
      length, is longer than what is predicted or not in the vocabulary.
  """
  ((start, end),) = text.spans
  encoding = tokenizer.encode(text.text)
  pieces = pieces_of(encoding, (start, end))
  starts, ends = encoding.starts, encoding.ends
  cut = (starts < start) & (start < ends) | (starts < end) & (end < ends)
  wrong = ""
  if cut.any() or not len(pieces):
    wrong = "is not made of whole word pieces: mark whole words"
  elif tokenizer.unk_id in encoding.ids[pieces]:
    wrong = "is not in the run's vocabulary: it cannot be filled in"
  elif pieces[-1] >= run.lengths.query - 2:
    wrong = (
      f"ends with word piece {pieces[-1] + 1}, and a query has "
      f"{run.lengths.query - 2} (lengths.query less 2): shorten the text"
    )
  elif len(pieces) > run.lengths.masks:
    wrong = (
      f"has {len(pieces)} word pieces, of which {run.lengths.masks} are "
      "predicted (lengths.masks): mark fewer words"
    )
  span = mask_first_span(text, run, tokenizer)
  if wrong or span is None:
    raise ValueError(
      f"The span {text.text[start:end]!r} of {text.text!r} {wrong}."
    )
  return span
