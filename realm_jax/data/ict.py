# SPDX-License-Identifier: Apache-2.0
"""The inverse cloze task's pairs: a stretch of text and its passage (ORQA 3).

By default the stretch is a sentence of the passage, mostly taken out of it.
A file of texts with their sources does for what has too little text: then a
text, masked as for pre-training, is the query.
"""

from typing import Any

import grain
from jaxtyping import Int
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.pair_order import ENDLESS, ExampleOrder, title_numbers
from realm_jax.data.pretrain import masked_queries
from realm_jax.data.tokenize import Tokenizer

Example = dict[str, Any]


def ict_rows(
  run: RunConfig, tokenizer: Tokenizer, corpus: PassageCorpus
) -> grain.MapDataset:
  """Returns examples {"query": row [Q], "passage": row [P]}, without end.

  Index alone decides what each is.

  Args:
    run: lengths, `ict` and seed; the queries are the texts of `data.train`,
      or the sentences of the corpus.
    tokenizer: the corpus' own.
    corpus: has the passages.

  Raises:
    OSError: the file of texts cannot be opened.
    ValueError: it is empty, or a line is bad or names no passage of the
      corpus as its source; no passage has two sentences; or texts are to come
      by title.
  """
  if run.data.train:
    if run.ict.same_title > 1:
      raise ValueError(
        f"ict.same_title ({run.ict.same_title}) orders the corpus' own "
        f"sentences, and the texts are those of {run.data.train}: set it to 1."
      )
    return _text_pairs(run, tokenizer, corpus)
  return _sentence_pairs(run, tokenizer, corpus)


def _text_pairs(
  run: RunConfig, tokenizer: Tokenizer, corpus: PassageCorpus
) -> grain.MapDataset:
  path = run.data.train

  def pair(example: Example) -> Example:
    row = int(example["source_row"])
    if row == collate.NULL_ROW:
      raise ValueError(
        f"{path}: a text has no 'source_uid' that {corpus.directory} knows. "
        "The inverse cloze task needs the passage that each came from."
      )
    passage = collate.passage_row(
      corpus.title_ids(row),
      corpus.body_ids(row),
      tokenizer,
      run.lengths.passage,
    )
    return {"query": example["query"], "passage": passage}

  return masked_queries(run, tokenizer, corpus, path, train=True).map(pair)


def _sentence_pairs(
  run: RunConfig, tokenizer: Tokenizer, corpus: PassageCorpus
) -> grain.MapDataset:
  corpus.check_tokenizer(tokenizer)
  lengths, removal_rate = run.lengths, run.ict.removal_rate
  # Of one sentence nothing is left when it is taken out.
  rows = np.flatnonzero(corpus.sentence_counts >= 2)
  if len(rows) == 0:
    raise ValueError(
      f"No passage of {corpus.directory} has two sentences, so the inverse "
      "cloze task has nothing to take out. Prepare the corpus with more "
      "pieces a passage, or give texts in data.train."
    )

  def pair(index: int, rng: np.random.Generator) -> Example:
    row = int(rows[index])
    body = corpus.body_ids(row)
    bounds = np.append(corpus.sentence_starts(row), len(body))
    chosen = int(rng.integers(len(bounds) - 1))
    start, stop = bounds[chosen], bounds[chosen + 1]
    query = collate.query_row(body[start:stop], tokenizer, lengths.query)
    if rng.random() < removal_rate:
      body = np.concatenate([body[:start], body[stop:]])
    passage = collate.passage_row(
      corpus.title_ids(row), body, tokenizer, lengths.passage
    )
    return {"query": query, "passage": passage}

  return _indices(run, corpus, rows).random_map(pair)


def _indices(
  run: RunConfig, corpus: PassageCorpus, rows: Int[np.ndarray, "_"]
) -> grain.MapDataset:
  """Returns places in `rows`, shuffled anew in every epoch, without end."""
  if run.ict.same_title == 1:
    # Drawn one by one: of millions of passages no order has to be made first.
    dataset = grain.MapDataset.range(len(rows)).seed(run.seed)
    return dataset.shuffle().repeat()
  order = ExampleOrder(
    np.arange(len(rows)),
    title_numbers(corpus, rows),
    together=1,
    same_title=run.ict.same_title,
    seed=run.seed,
  )
  dataset = grain.MapDataset.range(ENDLESS).seed(run.seed)
  return dataset.map(lambda place: int(order[place][0]))
