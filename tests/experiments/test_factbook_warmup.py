# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from experiments.factbook_demo import warmup


@pytest.fixture(scope="module")
def lines(corpus):
  return list(
    itertools.islice(warmup.fragments(corpus, held_out=(), seed=0), 4000)
  )


def test_a_fragment_masks_what_stands_in_its_passage(lines, corpus):
  for line in lines[:400]:
    [(start, end)] = line["spans"]
    value = line["text"][start:end]
    assert value and value.strip() == value
    assert value in corpus.passage(corpus.row_of(line["source_uid"])).text


def test_most_fragments_name_their_country(lines, corpus):
  named = [
    corpus.passage(corpus.row_of(line["source_uid"])).title in line["text"]
    for line in lines[:400]
  ]
  assert 0.85 < sum(named) / len(named) < 1.0


def test_no_fragment_is_of_a_held_out_passage(lines, corpus):
  sources = [line["source_uid"] for line in lines]
  held_out = set(sources[:400])
  left = itertools.islice(
    warmup.fragments(corpus, held_out=held_out, seed=0), 2000
  )
  assert held_out.isdisjoint(line["source_uid"] for line in left)


def test_every_other_passage_has_the_same_number_of_fragments(lines, corpus):
  expected = [
    corpus.passage(row).uid
    for row in range(len(lines) // warmup.FRAGMENTS_PER_PASSAGE)
    for _ in range(warmup.FRAGMENTS_PER_PASSAGE)
  ]
  assert [line["source_uid"] for line in lines] == expected


def test_the_seed_alone_decides_the_fragments(lines, corpus):
  again = warmup.fragments(corpus, held_out=(), seed=0)
  other = warmup.fragments(corpus, held_out=(), seed=1)
  assert list(itertools.islice(again, 50)) == lines[:50]
  assert list(itertools.islice(other, 50)) != lines[:50]
