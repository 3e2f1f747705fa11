# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/collate.py."""

import numpy as np
import pytest

from realm_jax.data import collate


def _stack(rows):
  return {
    name: np.stack([row[name] for row in rows])
    for name in ("ids", "segments", "mask")
  }


def _assert_rows_equal(found, expected):
  for name in ("ids", "segments", "mask"):
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found[name].dtype == expected[name].dtype


def _queries(tokenizer, count, length=16):
  texts = ["The capital of Bakodia.", "1901", "", "roads lead " * 9]
  encoded = tokenizer.encode_batch((texts * count)[:count])
  return collate.query_rows([e.ids for e in encoded], tokenizer, length)


def test_a_query_row_letter_by_letter(tiny_tokenizer):
  t = tiny_tokenizer
  row = collate.query_row(np.array([9, 8, 7], np.int32), t, 6)
  assert row["ids"].tolist() == [t.cls_id, 9, 8, 7, t.sep_id, t.pad_id]
  assert row["segments"].tolist() == [0] * 6
  assert row["mask"].tolist() == [True] * 5 + [False]


def test_a_long_query_loses_its_end(tiny_tokenizer):
  t = tiny_tokenizer
  row = collate.query_row(np.arange(9, dtype=np.int32), t, 5)
  assert row["ids"].tolist() == [t.cls_id, 0, 1, 2, t.sep_id]


def test_a_passage_row_letter_by_letter(tiny_tokenizer):
  t = tiny_tokenizer
  title, body = np.array([9], np.int32), np.array([7, 6], np.int32)
  row = collate.passage_row(title, body, t, 7)
  expected = [t.cls_id, 9, t.sep_id, 7, 6, t.sep_id, t.pad_id]
  assert row["ids"].tolist() == expected
  assert row["segments"].tolist() == [0, 0, 0, 1, 1, 1, 0]
  assert row["mask"].sum() == 6


def test_joint_rows_letter_by_letter(tiny_tokenizer):
  t = tiny_tokenizer
  query = collate.query_row(np.array([9], np.int32), t, 5)
  body, title = np.array([7, 6], np.int32), np.array([5], np.int32)
  plain = collate.joint_row(query, body, t, 7)
  head = [t.cls_id, 9, t.sep_id]
  assert plain["ids"].tolist() == [*head, 7, 6, t.sep_id, t.pad_id]
  assert plain["segments"].tolist() == [0, 0, 0, 1, 1, 1, 0]
  titled = collate.joint_row(query, body, t, 8, title_ids=title)
  assert titled["ids"].tolist() == [*head, 5, t.sep_id, 7, 6, t.sep_id]
  assert titled["segments"].tolist() == [0] * 3 + [1] * 5


def test_the_null_document_is_its_special_tokens(tiny_corpus, tiny_tokenizer):
  t = tiny_tokenizer
  null = np.array([collate.NULL_ROW])
  rows = collate.passage_rows(tiny_corpus, t, null, 5)
  assert rows["ids"].tolist() == [
    [t.cls_id, t.sep_id, t.sep_id, t.pad_id, t.pad_id]
  ]
  assert rows["segments"].tolist() == [[0, 0, 1, 0, 0]]
  query = collate.query_rows([np.array([9], np.int32)], t, 4)
  for with_title in (False, True):
    joint = collate.joint_rows(
      query, tiny_corpus, t, null, 5, with_title=with_title
    )
    assert joint.rows["ids"].tolist() == [
      [t.cls_id, 9, t.sep_id, t.sep_id, t.pad_id]
    ]
    assert not joint.block_mask.any()


@pytest.mark.parametrize("length", [48, 21, 8, 4, 3])
def test_gathered_passages_equal_those_built_one_by_one(
  tiny_corpus, tiny_tokenizer, length
):
  rows = np.array([*range(len(tiny_corpus)), -1, 3])
  nothing = np.zeros(0, np.int32)
  expected = [
    collate.passage_row(
      tiny_corpus.title_ids(row) if row >= 0 else nothing,
      tiny_corpus.body_ids(row) if row >= 0 else nothing,
      tiny_tokenizer,
      length,
    )
    for row in rows
  ]
  found = collate.passage_rows(tiny_corpus, tiny_tokenizer, rows, length)
  _assert_rows_equal(found, _stack(expected))
  lengths = collate.passage_lengths(tiny_corpus, rows, length)
  np.testing.assert_array_equal(lengths, found["mask"].sum(axis=1))


@pytest.mark.parametrize("with_title", [False, True])
@pytest.mark.parametrize("length", [64, 32, 19, 18, 17])
def test_gathered_joint_rows_equal_those_built_one_by_one(
  tiny_corpus, tiny_tokenizer, length, with_title
):
  rows = np.array([*range(len(tiny_corpus)), -1, 3])
  queries = _queries(tiny_tokenizer, len(rows))
  nothing = np.zeros(0, np.int32)
  expected = []
  for i, row in enumerate(rows):
    query = {name: queries[name][i] for name in queries}
    title = tiny_corpus.title_ids(row) if with_title and row >= 0 else None
    body = tiny_corpus.body_ids(row) if row >= 0 else nothing
    expected.append(
      collate.joint_row(query, body, tiny_tokenizer, length, title_ids=title)
    )
  found = collate.joint_rows(
    queries, tiny_corpus, tiny_tokenizer, rows, length, with_title=with_title
  )
  _assert_rows_equal(found.rows, _stack(expected))
  lengths = collate.joint_lengths(
    queries["mask"].sum(axis=1),
    tiny_corpus,
    rows,
    length,
    with_title=with_title,
  )
  np.testing.assert_array_equal(lengths, found.rows["mask"].sum(axis=1))


@pytest.mark.parametrize("with_title", [False, True])
def test_the_block_mask_covers_the_body_alone(
  tiny_corpus, tiny_tokenizer, with_title
):
  rows = np.arange(len(tiny_corpus))
  queries = _queries(tiny_tokenizer, len(rows))
  found = collate.joint_rows(
    queries, tiny_corpus, tiny_tokenizer, rows, 64, with_title=with_title
  )
  for row in rows:
    np.testing.assert_array_equal(
      found.rows["ids"][row][found.block_mask[row]], tiny_corpus.body_ids(row)
    )


def test_a_joint_row_may_be_shorter_than_the_query_rows(
  tiny_corpus, tiny_tokenizer
):
  queries = _queries(tiny_tokenizer, 2)
  used = queries["mask"].sum(axis=1).max().item()
  null = np.array([-1, -1])
  found = collate.joint_rows(
    queries, tiny_corpus, tiny_tokenizer, null, used + 1, with_title=False
  )
  assert found.rows["mask"].sum() == queries["mask"].sum() + 2
