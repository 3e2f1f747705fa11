# SPDX-License-Identifier: Apache-2.0
"""Held-out masked spans, filled in with and without looking things up.

Open book is the marginal over the candidates of the index, which is searched
as in pre-training, with the query tower that it was built with; p(z|x) and
p(y|z,x) are the checkpoint's own. Closed book is the null document alone. A
run without a retriever (mlm) has only that, and one without an encoder (ict)
only its recall.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from jaxtyping import Float, Float32, Int32
import numpy as np

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold import named_rows
from realm_jax.data.own_words import LEAK, held_shares
from realm_jax.data.pretrain import MaskedTexts
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.eval import retrieval
from realm_jax.eval.figures import summarise
from realm_jax.eval.predictions import SpanPrediction
from realm_jax.eval.question_scores import Asked, Found
from realm_jax.eval.retriever import Retriever
from realm_jax.eval.span_filler import (
  MaskedSpan,
  SpanFiller,
  mask_first_span,
  span_examples,
)
from realm_jax.index.corpora import open_corpora

_BATCH = 16


def read_spans(
  texts: MaskedTexts,
  run: RunConfig,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  limit: int = 0,
) -> list[MaskedSpan]:
  """Masks the first span of each of the first `limit` texts (0: of all).

  Texts without a span inside the query's length are left out.

  Raises:
    ValueError: a malformed line, or a passage_uid that is not in the corpus.
  """
  found = []
  for index in range(min(limit or len(texts), len(texts))):
    text = texts[index]
    span = mask_first_span(text, run, tokenizer)
    if span is None:
      continue
    source_row = None
    if text.source_uid and run.retrieval.exclude_own:
      source_row = corpus.row_of(text.source_uid)
    found.append(
      dataclasses.replace(
        span,
        source_row=collate.NULL_ROW if source_row is None else source_row,
        passage_uid=text.passage_uid,
        named=named_rows(text.passage_uid, corpus, texts.where(index)),
      )
    )
  return found


def evaluate_spans(
  workdir: str, data: str, *, corpus: str, step: int, limit: int
) -> tuple[dict[str, Any], list[SpanPrediction]]:
  """Returns figures and, but for ict, what was filled in.

  The arguments are those of `evaluate`.
  """
  run = workdirs.load(workdir)
  step = step or checkpoints.newest_step(workdir)
  tokenizer = load_tokenizer(run.data.tokenizer)
  corpora = open_corpora(workdir, run, corpus)
  retriever = None
  if run.stage != "mlm":
    retriever = Retriever(workdir, run, corpora, tokenizer)
  passages = (
    retriever.version.corpus if retriever else corpora.open(corpora.moves()[0])
  )
  texts = MaskedTexts(data)
  spans = read_spans(texts, run, tokenizer, passages, limit)
  if not spans:
    raise ValueError(
      f"{data} has no span within the query's {run.lengths.query} tokens. "
      "Give 'spans', or raise lengths.query."
    )
  facts: dict[str, Any] = {
    "step": step,
    "corpus": str(passages.directory),
    "num_examples": len(spans),
    "num_skipped": min(limit or len(texts), len(texts)) - len(spans),
  }
  neighbors, recall = None, {}
  if retriever:
    neighbors = find_passages(retriever, spans, run, passages, tokenizer)
    facts["index_version"] = retriever.version.version
    recall = _recall(spans, neighbors, passages)
    rows = neighbors[:, : run.retrieval.num_candidates - 1]
    held = _held_shares(spans, run, passages, tokenizer, rows) >= LEAK
    recall["own_words"] = held.sum(axis=1) / np.maximum(
      (rows >= 0).sum(axis=1), 1
    )
  if retriever and run.stage != "realm":
    # Nothing of the checkpoint itself was used.
    return {**facts, "step": retriever.version.step, **summarise(recall)}, []
  lengths = np.array([len(span.masked.ids) + 2 for span in spans])
  filler = SpanFiller(
    workdir, step, run, passages, tokenizer, lengths, batch_size=_BATCH
  )
  found = filler.fill_all(spans, neighbors)
  return {**facts, **summarise({**_columns(found), **recall})}, found


def _held_shares(
  spans: Sequence[MaskedSpan],
  run: RunConfig,
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  rows: Int32[np.ndarray, "n k"],
) -> Float32[np.ndarray, "n k"]:
  """Does `own_words.held_shares` in bounded memory."""
  parts = [
    held_shares(
      span_examples(spans[i : i + _BATCH], run, tokenizer),
      tokenizer,
      corpus,
      rows[i : i + _BATCH],
    )
    for i in range(0, len(spans), _BATCH)
  ]
  return np.concatenate(parts)


def _recall(
  spans: Sequence[MaskedSpan],
  neighbors: Int32[np.ndarray, "n k"],
  corpus: PassageCorpus,
) -> dict[str, Float[np.ndarray, " n"]]:
  asked = Asked(
    [Question(text="", answers=(span.answer,)) for span in spans],
    [span.named for span in spans],
  )
  return Found.look_up(asked, neighbors, corpus).columns(asked)


def find_passages(
  retriever: Retriever,
  spans: Sequence[MaskedSpan],
  run: RunConfig,
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
) -> Int32[np.ndarray, "n depth"]:
  """Returns rows, best first, own ones left out; NULL_ROW for none.

  They are as many as recall and the run's candidates need.
  """
  limit = run.retrieval.exclude_overlap
  depth = max(retrieval.search_depth(corpus), run.retrieval.num_candidates - 1)
  depth = min(depth, len(corpus))
  # More than is needed: the own passage may be among them, or its words.
  num_found = 2 * depth if limit else depth + 1
  ids = retriever.search([span.masked.ids for span in spans], num_found).ids
  own = np.array([span.source_row for span in spans])
  dropped = ids == own[:, None]
  if limit:
    dropped |= _held_shares(spans, run, corpus, tokenizer, ids) >= limit
  order = np.argsort(dropped, axis=1, kind="stable")[:, :depth]
  kept = np.where(dropped, collate.NULL_ROW, ids)
  return np.take_along_axis(kept, order, axis=1)


def _columns(
  found: Sequence[SpanPrediction],
) -> dict[str, Float[np.ndarray, " n"]]:
  figures = {"closed_book_exact_match": "closed_book_right"}
  if found[0].candidates:
    figures |= {
      "open_book_exact_match": "right",
      "retrieval_utility": "retrieval_utility",
    }
  return {
    name: np.array([getattr(one, field) for one in found], np.float64)
    for name, field in figures.items()
  }
