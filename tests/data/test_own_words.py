# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/own_words.py."""

import numpy as np
import pytest

from realm_jax.config import LengthConfig, RunConfig
from realm_jax.data import collate, masking, own_words
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document

_RUN = RunConfig(lengths=LengthConfig(query=32, passage=96, joint=128, masks=4))
_SENTENCE = "The capital of Bakodia is Bakoton, and 107 km of road lead to it."


def _examples(tokenizer, texts, chosen=(6, 7)):
  """Texts with the pieces `chosen` masked, as `pretrain` makes examples."""
  masked = [
    masking.mask_pieces(
      tokenizer.encode(text).ids[:30],
      np.array(chosen, np.int32),
      tokenizer.mask_id,
      _RUN.lengths.masks,
    )
    for text in texts
  ]
  keep = np.stack([m.target_mask for m in masked])
  return {
    "query": collate.query_rows([m.ids for m in masked], tokenizer, 32),
    "positions": np.stack([m.positions for m in masked]) + keep,
    "targets": np.stack([m.targets for m in masked]),
    "target_mask": keep,
  }


@pytest.fixture
def build(tmp_path, tiny_tokenizer):
  def make(*texts):
    documents = [Document(title="T", text=text) for text in texts]
    return build_corpus(documents, tiny_tokenizer, tmp_path / "c", 200)

  return make


def test_reblocked_and_lightly_edited_text_is_known_by_its_words(
  build, tiny_tokenizer
):
  corpus = build(
    f"In 1900 the harvest fell. {_SENTENCE} It became free.",  # Cut elsewhere.
    _SENTENCE.replace("107", "108"),  # Printed again, with a change.
    "The capital of Koridia is Rimuton. It became free on 4 May 1806.",
    "107 km of road lead to Bakodia, and its capital is Bakoton.",  # In others.
  )
  examples = _examples(tiny_tokenizer, [_SENTENCE])
  rows = np.array([[0, 1, 2, 3, -1]])
  (shares,) = own_words.held_shares(examples, tiny_tokenizer, corpus, rows)
  assert shares[0] == 1.0
  assert own_words.LEAK <= shares[1] < 1.0
  assert shares[2] < own_words.LEAK and shares[4] == 0.0
  assert own_words.holds_words(
    examples, tiny_tokenizer, corpus, rows
  ).tolist() == [[True, True, False, bool(shares[3] >= 0.5), False]]


def test_shares_equal_sets_of_shingles(tiny_corpus, tiny_tokenizer):
  """Against sets in Python, over random texts and passages."""
  rng = np.random.default_rng(0)
  source = rng.integers(len(tiny_corpus), size=12)
  texts = [tiny_corpus.passage(row).text for row in source]
  rows = rng.integers(-1, len(tiny_corpus), size=(12, 6))
  rows[:, 0] = source
  examples = _examples(tiny_tokenizer, texts)

  found = own_words.held_shares(examples, tiny_tokenizer, tiny_corpus, rows)

  def shingles(ids):
    return {tuple(ids[i : i + 5]) for i in range(len(ids) - 4)}

  for text, row, line in zip(texts, rows, found, strict=True):
    wanted = shingles(tiny_tokenizer.encode(text).ids[:30].tolist())
    for place, share in zip(row, line, strict=True):
      held = wanted & shingles(tiny_corpus.body_ids(place).tolist())
      expected = len(held) / len(wanted) if place >= 0 else 0.0
      assert share == pytest.approx(expected)


def test_what_stays_masked_does_not_count(build, tiny_tokenizer):
  corpus = build(_SENTENCE)
  # Of ten masked pieces four are predicted; the other six are not known.
  examples = _examples(tiny_tokenizer, [_SENTENCE], chosen=range(2, 12))
  assert (examples["query"]["ids"] == tiny_tokenizer.mask_id).sum() == 10
  rows = np.array([[0]])
  assert own_words.held_shares(examples, tiny_tokenizer, corpus, rows) == 1.0


def test_a_text_shorter_than_a_shingle_has_no_words(build, tiny_tokenizer):
  corpus = build("It fell.")
  examples = _examples(tiny_tokenizer, ["It fell."], chosen=[1])
  for rows in (np.array([[0]]), np.array([[-1]])):
    assert own_words.held_shares(examples, tiny_tokenizer, corpus, rows) == 0.0
