# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
import threading

import numpy as np
import pytest

from realm_jax.index import drafts
from realm_jax.index.drafts import DraftPlan
from realm_jax.index.lease import LeaseObserver, Leases

PLAN = DraftPlan(
  step=3,
  checkpoint_unix_secs=1.5,
  embedder_hash="ab",
  num_passages=25,
  shard_passages=10,
)
PARAMS = {"shared": {"head": {"scale": np.arange(4, dtype=np.float32)}}}


def begin(folder, plan=PLAN):
  return drafts.begin(folder / "v", plan, PARAMS, Leases(), LeaseObserver())


def vectors(shard, plan=PLAN):
  rows = plan.rows(shard)
  return np.repeat(rows[:, None], 4, axis=1).astype(np.float32)


def test_shards_cover_the_passages_in_order():
  rows = [PLAN.rows(shard) for shard in range(PLAN.num_shards)]
  assert [len(each) for each in rows] == [10, 10, 5]
  assert np.concatenate(rows).tolist() == list(range(25))


def test_a_shard_is_there_once_it_is_committed(tmp_path):
  draft = begin(tmp_path)
  assert draft.missing() == [0, 1, 2]
  for shard in (2, 0, 1):
    draft.add(shard, vectors(shard))
  assert draft.missing() == []
  whole = [np.load(draft.directory / each.path) for each in draft.shards()]
  assert np.concatenate(whole)[:, 0].tolist() == list(range(25))


def test_another_builder_goes_on_with_what_is_there(tmp_path):
  begin(tmp_path).add(1, vectors(1))
  assert begin(tmp_path).missing() == [0, 2]
  read = drafts.read_params(tmp_path / "v")
  np.testing.assert_array_equal(
    read["shared"]["head"]["scale"], PARAMS["shared"]["head"]["scale"]
  )
  assert drafts.read_plan(tmp_path / "v") == PLAN


@pytest.mark.parametrize(
  "change", [{"embedder_hash": "cd"}, {"shard_passages": 5}]
)
def test_what_was_made_of_another_plan_is_discarded(tmp_path, change):
  begin(tmp_path).add(1, vectors(1))
  other = dataclasses.replace(PLAN, **change)
  assert len(begin(tmp_path, other).missing()) == other.num_shards


def test_builders_never_hold_the_same_shard(tmp_path):
  plan = dataclasses.replace(PLAN, num_passages=400)
  begin(tmp_path, plan)
  made, lock = [], threading.Lock()

  def work():
    draft = begin(tmp_path, plan)
    while draft.missing():
      with draft.claim() as shard:
        if shard is not None and shard in draft.missing():
          with lock:
            made.append(shard)
          draft.add(shard, vectors(shard, plan))

  threads = [threading.Thread(target=work) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  # A claim may come a moment after another's lease has ended.
  assert sorted(set(made)) == list(range(40))
  assert len(made) <= 44


def test_a_claimed_shard_is_left_to_its_builder(tmp_path):
  builders = [begin(tmp_path) for _ in range(4)]
  with contextlib.ExitStack() as stack:
    claimed = [stack.enter_context(each.claim()) for each in builders]
    assert set(claimed[:3]) == {0, 1, 2}
    assert claimed[3] is None


def test_one_builder_finishes(tmp_path):
  first, second = begin(tmp_path), begin(tmp_path)
  with first.claim_finish() as mine, second.claim_finish() as yours:
    assert mine
    assert not yours
  with second.claim_finish() as yours:
    assert yours


def test_of_two_that_claim_the_finish_at_the_same_moment_none_does(
  tmp_path, monkeypatch
):
  first, second = begin(tmp_path), begin(tmp_path)
  looks = iter([[], ["the other"]])
  monkeypatch.setattr(first, "_others", lambda folder: next(looks))
  with first.claim_finish() as mine:
    assert not mine
  with second.claim_finish() as yours:
    assert yours


@pytest.mark.parametrize("damage", ["truncated", "a flipped byte", "gone"])
def test_a_damaged_shard_is_made_again(tmp_path, damage):
  draft = begin(tmp_path)
  for shard in range(3):
    draft.add(shard, vectors(shard))
  path = draft.directory / draft.shards()[1].path
  content = bytearray(path.read_bytes())
  if damage == "gone":
    path.unlink()
  else:
    content[-1] ^= 1
    path.write_bytes(content[: -1 if damage == "truncated" else None])

  if damage == "a flipped byte":  # Seen when all is read.
    assert draft.missing() == []
    assert draft.drop_damaged() == [f"embeddings/{path.name}"]
  assert draft.missing() == [1]


def test_half_a_commit_is_none(tmp_path):
  draft = begin(tmp_path)
  draft.add(0, vectors(0))
  (commit,) = (draft.directory / "shards").iterdir()
  commit.write_text(commit.read_text()[:-5])
  assert draft.missing() == [0, 1, 2]


def test_a_draft_is_abandoned_only_when_nobody_else_is_at_work(tmp_path):
  first, second = begin(tmp_path), begin(tmp_path)
  with second.claim():
    first.abandon()
    assert first.directory.exists()
  first.abandon()
  assert not first.directory.exists()


def test_a_published_version_is_final(tmp_path):
  draft = begin(tmp_path)
  (draft.directory / drafts.MANIFEST).write_text("{}")
  with pytest.raises(FileExistsError, match="final"):
    begin(tmp_path)
