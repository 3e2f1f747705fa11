# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from realm_jax.index.embeddings import Embeddings

_ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)
_SHARDED = Embeddings([_ROWS[:4], _ROWS[4:5], _ROWS[5:]])


def test_rows_come_from_whichever_shard_holds_them():
  ids = np.array([[9, 0], [4, 5], [4, 3]])
  np.testing.assert_array_equal(_SHARDED[ids], _ROWS[ids])
  assert _SHARDED.shape == (10, 3) and len(_SHARDED) == 10


def test_blocks_cover_all_rows_once_and_in_order():
  blocks = list(_SHARDED.blocks(3))
  assert [first for first, _ in blocks] == [0, 3, 4, 5, 8]
  np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), _ROWS)


@pytest.mark.parametrize("span", [(0, 10), (1, 4), (3, 6), (4, 5), (8, 99)])
def test_a_range_of_rows_may_cross_shards(span):
  np.testing.assert_array_equal(_SHARDED.rows(*span), _ROWS[slice(*span)])


def test_a_range_of_rows_within_a_shard_is_no_copy():
  assert np.shares_memory(_SHARDED.rows(5, 8), _ROWS)


def test_one_shard_becomes_an_array_without_a_copy():
  assert np.shares_memory(np.asarray(Embeddings([_ROWS])), _ROWS)
  np.testing.assert_array_equal(np.asarray(_SHARDED), _ROWS)


@pytest.mark.parametrize("bad", [-1, 10])
def test_ids_outside_the_corpus_are_refused(bad):
  with pytest.raises(IndexError, match=r"0\.\.9"):
    _SHARDED[np.array([0, bad])]


def test_shards_of_different_width_are_refused():
  with pytest.raises(ValueError, match=r"widths \[2, 3\]"):
    Embeddings([_ROWS, _ROWS[:, :2]])
