# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.index import bm25
from realm_jax.index.bm25 import Bm25Index
from realm_jax.index.search import NO_PASSAGE

TEXTS = [
  ("Rome", "Rome is the capital of Italy, and the seat of the Pope."),
  ("Chad", "N'Djamena lies on the Chari. The Chari is a river."),
  ("Peru", "Lima, the capital, lies on the coast."),
  ("Peru", "Lima, the capital, lies on the coast!"),
  ("Oslo", "Cold."),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_tokenizer):
  documents = [Document(title=title, text=text) for title, text in TEXTS]
  folder = tmp_path_factory.mktemp("bm25") / "corpus"
  return build_corpus(documents, tiny_tokenizer, folder, max_pieces=200)


@pytest.fixture
def corpus(source, tmp_path):
  """A copy that has no BM25 yet."""
  shutil.copytree(
    source.directory, tmp_path / "corpus", ignore=lambda *_: {"bm25"}
  )
  return PassageCorpus.open(tmp_path / "corpus")


def by_hand(question):
  """Robertson's weights with Lucene's idf, word by word."""
  bags = [Counter(bm25._words(f"{title} {text}")) for title, text in TEXTS]
  mean = np.mean([bag.total() for bag in bags])
  scores = np.zeros(len(bags))
  for word in bm25._words(question):
    holding = sum(word in bag for bag in bags)
    idf = math.log(1 + (len(bags) - holding + 0.5) / (holding + 0.5))
    for row, bag in enumerate(bags):
      norm = 0.9 * (0.6 + 0.4 * bag.total() / mean)
      scores[row] += idf * bag[word] / (bag[word] + norm)
  return scores


@pytest.mark.parametrize(
  "question",
  ["What is the CAPITAL of Peru?", "the river the Chari", "unheard-of", ""],
)
def test_scores_are_the_formula_s_and_equals_come_by_row(source, question):
  found = Bm25Index.open(source).search([question], 5)
  wanted = by_hand(question)
  order = np.argsort(-wanted, kind="stable")
  np.testing.assert_array_equal(found.ids[0], order)
  np.testing.assert_allclose(found.scores[0], wanted[order], rtol=1e-5)


def test_a_small_corpus_fills_the_rest_with_no_passage(source):
  found = Bm25Index.open(source).search(["capital of Italy", "Lima"], 7)
  assert found.ids.dtype == np.int32 and found.ids.shape == (2, 7)
  assert (found.ids[:, 5:] == NO_PASSAGE).all()
  assert (found.scores[:, 5:] == -np.inf).all()
  assert found.ids[1, 0] == 2  # Before its like.


def test_threads_find_what_one_finds(source):
  index = Bm25Index.open(source)
  questions = [f"{title} {text}" for title, text in TEXTS] * 20
  together = index.search(questions, 3)
  with ThreadPoolExecutor(4) as threads:
    alone = list(threads.map(lambda q: index.search([q], 3), questions))
  np.testing.assert_array_equal(
    together.ids, np.concatenate([a.ids for a in alone])
  )


def test_k_below_one_is_refused(source):
  with pytest.raises(ValueError, match="k must be at least 1, got 0"):
    Bm25Index.open(source).search(["x"], 0)


def test_what_is_sound_is_opened_and_not_made_again(corpus):
  Bm25Index.open(corpus)
  corpus.folder.chmod(0o555)  # A corpus of others may be read-only.
  manifest = corpus.folder / "bm25" / "MANIFEST.json"
  before = manifest.stat().st_mtime_ns
  assert Bm25Index.open(corpus).search(["Lima"], 1).ids[0, 0] == 2
  assert manifest.stat().st_mtime_ns == before


def truncate(folder):
  path = folder / "data.csc.index.npy"
  path.write_bytes(path.read_bytes()[:-8])


def flip_a_bit(folder):
  path = folder / "indices.csc.index.npy"
  path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


def lose_the_manifest(folder):
  (folder / "MANIFEST.json").unlink()


def garble_the_manifest(folder):
  (folder / "MANIFEST.json").write_text("[]")


def change(**fields):
  def edit(folder):
    path = folder / "MANIFEST.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))

  return edit


@pytest.mark.parametrize(
  "damage",
  [
    truncate,
    flip_a_bit,
    lose_the_manifest,
    garble_the_manifest,
    change(b=0.75),
    change(corpus_fingerprint="another"),
    change(files=[{"path": "gone", "num_bytes": 1, "sha256": ""}]),
    change(files=[]),
  ],
)
def test_what_is_damaged_or_of_something_else_is_made_anew(corpus, damage):
  first = Bm25Index.open(corpus).search(["the capital of Italy"], 5)
  damage(corpus.folder / "bm25")
  again = Bm25Index.open(corpus).search(["the capital of Italy"], 5)
  np.testing.assert_array_equal(first.scores, again.scores)
  assert not bm25._flaw(corpus.folder / "bm25", corpus)


_KILLED = """
import os, sys
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import bm25

real = bm25.describe_folder
bm25.describe_folder = lambda *args: (real(*args), os._exit(9))
bm25.Bm25Index.open(PassageCorpus.open(sys.argv[1]))
"""


def test_a_builder_that_was_killed_leaves_nothing_that_is_read(corpus):
  command = [sys.executable, "-c", _KILLED, str(corpus.folder)]
  assert subprocess.run(command, check=False).returncode == 9
  assert (corpus.folder / ".bm25.draft").exists()
  assert not (corpus.folder / "bm25").exists()
  assert Bm25Index.open(corpus).search(["Lima"], 1).ids[0, 0] == 2
  assert not (corpus.folder / ".bm25.draft").exists()
