# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/reading.py."""

import dataclasses
import json

import numpy as np
import pytest

from realm_jax.config import (
  DataConfig,
  LengthConfig,
  ReadingConfig,
  RunConfig,
)
from realm_jax.data import collate, pretrain, reading

_RUN = RunConfig(
  lengths=LengthConfig(query=24, passage=48, joint=72, masks=4),
  reading=ReadingConfig(null_rate=0.0),
)


def _with(run=_RUN, *, null_rate=0.0, **data):
  return dataclasses.replace(
    run,
    reading=ReadingConfig(null_rate=null_rate),
    data=DataConfig(**data),
  )


def _texts(tmp_path, **source):
  path = tmp_path / "texts.jsonl"
  text = {"text": "Bakodia is free.", "spans": [[0, 7]], **source}
  path.write_text(json.dumps(text))
  return str(path)


def _is_null(example, tokenizer):
  return (
    example["joint"]["segments"].sum() == 1
    and (
      example["joint"]["ids"][example["joint"]["mask"]][-2:] == tokenizer.sep_id
    ).all()
  )


def test_a_text_stands_beside_the_passage_it_came_from(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  run = _with(train=_texts(tmp_path, source_uid="country-5"))
  row = tiny_corpus.row_of("country-5")
  query = pretrain.masked_queries(
    run, tiny_tokenizer, tiny_corpus, run.data.train, train=True
  )[0]

  example = reading.reading_rows(run, tiny_tokenizer, tiny_corpus)[0]

  expected = collate.joint_row(
    query["query"], tiny_corpus.body_ids(row), tiny_tokenizer, 72
  )
  for name, value in expected.items():
    np.testing.assert_array_equal(example["joint"][name], value)
  for name in ("positions", "targets", "target_mask"):
    np.testing.assert_array_equal(example[name], query[name])


def test_masks_are_where_the_positions_say(tiny_corpus, tiny_tokenizer):
  examples = reading.reading_rows(_RUN, tiny_tokenizer, tiny_corpus)
  for index in range(20):
    example = examples[index]
    places = example["positions"][example["target_mask"]]
    masked = example["joint"]["ids"][places]
    assert places.size and (masked == tiny_tokenizer.mask_id).all()


def test_sentences_of_the_corpus_are_found_again_in_their_passage(
  tiny_corpus, tiny_tokenizer
):
  examples = reading.reading_rows(_RUN, tiny_tokenizer, tiny_corpus)
  for index in range(20):
    example = examples[index]
    body = example["joint"]["ids"][example["joint"]["segments"] == 1]
    keep = example["target_mask"]
    assert set(example["targets"][keep].tolist()) <= set(body.tolist())


def test_the_reader_sees_the_title_only_if_told_so(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  path = _texts(tmp_path, source_uid="country-5")
  lengths = [
    int(
      reading.reading_rows(
        _with(train=path, reader_sees_title=title), tiny_tokenizer, tiny_corpus
      )[0]["joint"]["mask"].sum()
    )
    for title in (False, True)
  ]
  title = tiny_corpus.title_ids(tiny_corpus.row_of("country-5"))
  assert lengths[1] == lengths[0] + len(title) + 1  # And its [SEP].


def test_the_null_document_comes_at_its_rate(tiny_corpus, tiny_tokenizer):
  rows = reading.reading_rows(
    _with(null_rate=0.25), tiny_tokenizer, tiny_corpus
  )
  nulls = [_is_null(rows[i], tiny_tokenizer) for i in range(400)]
  # Four standard errors of a binomial share.
  assert abs(np.mean(nulls) - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_closed_book_texts_need_no_source(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  run = _with(train=_texts(tmp_path), null_rate=1.0)
  rows = reading.reading_rows(run, tiny_tokenizer, tiny_corpus)
  assert all(_is_null(rows[i], tiny_tokenizer) for i in range(5))


def test_a_text_without_a_source_is_refused_when_passages_are_wanted(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  run = _with(train=_texts(tmp_path), null_rate=0.5)
  rows = reading.reading_rows(run, tiny_tokenizer, tiny_corpus)
  with pytest.raises(ValueError, match=r"texts\.jsonl.*null_rate \(0\.5\)"):
    for index in range(20):
      rows[index]


def test_the_index_alone_decides_the_example(tiny_corpus, tiny_tokenizer):
  run = _with(null_rate=0.5)
  once = reading.reading_rows(run, tiny_tokenizer, tiny_corpus)
  again = reading.reading_rows(run, tiny_tokenizer, tiny_corpus)
  again[3]
  np.testing.assert_array_equal(
    once[9]["joint"]["ids"], again[9]["joint"]["ids"]
  )
