# SPDX-License-Identifier: Apache-2.0
"""The encoder's warm-up: masked texts, each beside the passage it came from.

REALM starts from a BERT that can use a context. A tiny encoder from scratch
learns that here, before retrieval is there to give it one. With every text
beside the null document it is the closed-book baseline.
"""

from typing import Any

import grain
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.pretrain import masked_queries
from realm_jax.data.tokenize import Tokenizer


def reading_rows(
  run: RunConfig, tokenizer: Tokenizer, corpus: PassageCorpus
) -> grain.MapDataset:
  """Returns examples of masked texts and their passages, without end.

  An example is {"joint": row [T], "positions": i32[M] in the joint row,
  "targets": i32[M], "target_mask": bool[M]}; index alone decides what it is.

  Args:
    run: lengths, masking, `reading` and seed; the texts are those of
      `data.train`, or the sentences of the corpus.
    tokenizer: the corpus' own.
    corpus: has the passages.

  Raises:
    OSError: the file of texts cannot be opened.
    ValueError: it is empty, or a line is bad or names no passage of the
      corpus as its source.
  """
  path, null_rate = run.data.train, run.reading.null_rate

  def put_beside(
    example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    row = int(example["source_row"])
    has_passage = rng.random() >= null_rate
    if has_passage and row == collate.NULL_ROW:
      raise ValueError(
        f"{path}: a text has no 'source_uid' that {corpus.directory} knows, "
        f"and reading.null_rate ({null_rate}) is below 1: name the passage "
        "that each text came from, or set it to 1 to train closed book."
      )
    nothing = np.zeros(0, np.int32)
    with_title = has_passage and run.data.reader_sees_title
    return {
      "joint": collate.joint_row(
        example["query"],
        corpus.body_ids(row) if has_passage else nothing,
        tokenizer,
        run.lengths.joint,
        title_ids=corpus.title_ids(row) if with_title else None,
      ),
      # The joint row starts with the query row.
      **{name: example[name] for name in ("positions", "targets")},
      "target_mask": example["target_mask"],
    }

  queries = masked_queries(run, tokenizer, corpus, path, train=True)
  return queries.random_map(put_beside)
