# SPDX-License-Identifier: Apache-2.0
"""What it costs to compare a batch's texts with its candidates' words.

  python -m benchmarks.own_words --batch_size=512 --candidates=8

Passages have 280 pieces, texts 92: the paper's lengths. A tenth of the
passages hold the text. Seconds are of CPU time of one of the threads that
prepare batches ahead of the device.
"""

import json
import pathlib
import tempfile
import time

from absl import app, flags
import numpy as np

from realm_jax.data import own_words
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_writer import CorpusWriter
from realm_jax.data.records import Passage
from realm_jax.data.tokenize import Tokenizer, train_tokenizer
from realm_jax.shapes import Batch

_BATCH = flags.DEFINE_integer("batch_size", 512, "B")
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Passages a text.")
_PASSAGES = flags.DEFINE_integer("passages", 20_000, "Of the corpus.")
_TURNS = 5
_PASSAGE_PIECES, _TEXT_PIECES, _QUERY = 280, 92, 96


def _make_corpus(folder: pathlib.Path, tokenizer: Tokenizer) -> PassageCorpus:
  rng, none = np.random.default_rng(0), np.zeros(0, np.int32)
  start = np.zeros(1, np.int32)
  with CorpusWriter(folder / "corpus", tokenizer, 288) as writer:
    for row in range(_PASSAGES.value):
      ids = rng.integers(5, 30_000, size=_PASSAGE_PIECES).astype(np.int32)
      passage = Passage(uid=str(row), title="", text="")
      writer.append(
        writer.format.store(passage, none, ids, start, starts_document=True)
      )
    writer.finish({})
  return PassageCorpus.open(folder / "corpus")


def _make_examples(
  corpus: PassageCorpus, tokenizer: Tokenizer, rows: np.ndarray
) -> Batch:
  """Returns texts that are the beginnings of passages, three pieces masked."""
  ids = np.full((len(rows), _QUERY), tokenizer.pad_id, np.int32)
  for line, row in enumerate(rows):
    ids[line, 1 : 1 + _TEXT_PIECES] = corpus.body_ids(row)[:_TEXT_PIECES]
  ids[:, 0], ids[:, 1 + _TEXT_PIECES] = tokenizer.cls_id, tokenizer.sep_id
  positions = np.tile(np.arange(20, 23), (len(rows), 1))
  targets = np.take_along_axis(ids, positions, axis=1)
  np.put_along_axis(ids, positions, tokenizer.mask_id, axis=1)
  mask = np.broadcast_to(np.arange(_QUERY) < _TEXT_PIECES + 2, ids.shape)
  return {
    "query": {"ids": ids, "mask": mask},
    "positions": positions,
    "targets": targets,
    "target_mask": np.ones(positions.shape, bool),
  }


def main(_: list[str]) -> None:
  """Prints a line of JSON."""
  rng = np.random.default_rng(1)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    tokenizer = train_tokenizer(["a b c d e"], 64, folder / "tokenizer")
    corpus = _make_corpus(folder, tokenizer)
    shape = (_BATCH.value, _CANDIDATES.value)
    rows = rng.integers(len(corpus), size=shape)
    own = rng.integers(len(corpus), size=_BATCH.value)
    rows = np.where(rng.random(shape) < 0.1, own[:, None], rows)
    examples = _make_examples(corpus, tokenizer, own)
    seconds = []
    for _turn in range(_TURNS):
      started = time.thread_time()
      found = own_words.holds_words(examples, tokenizer, corpus, rows)
      seconds.append(time.thread_time() - started)
  print(
    json.dumps(
      {
        "batch_size": shape[0],
        "candidates": shape[1],
        "cpu_seconds": round(float(np.median(seconds)), 4),
        "microseconds_a_pair": round(1e6 * np.median(seconds) / rows.size, 1),
        "right": bool((found == (rows == own[:, None])).all()),
      }
    )
  )


if __name__ == "__main__":
  app.run(main)
