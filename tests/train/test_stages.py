# SPDX-License-Identifier: Apache-2.0
import copy
import dataclasses
import json

import jax
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.config import DprConfig
from realm_jax.data.answers import occurs
from realm_jax.data.corpus_edits import apply_edits, read_edits
from realm_jax.data.pairs import all_rows
from realm_jax.data.qa import Questions
from realm_jax.index.bm25 import Bm25Index
from realm_jax.index.device import DeviceIndex
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.search import Neighbors
from realm_jax.index.store import IndexVersion
from realm_jax.train import initial, probe, stages
from realm_jax.train.lookahead import LookAhead


@pytest.fixture
def version(make_run, tiny_corpus):
  """An index version of random vectors, with a random retriever."""
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(len(tiny_corpus), 8)).astype(np.float32)
  params = initial.retriever_params(make_run("realm"), jax.random.key(0))
  embeddings = Embeddings([vectors])
  made = object.__new__(IndexVersion)  # Without a manifest.
  fields = {
    "version": "00000000-abcdef01",
    "step": 0,
    "corpus": tiny_corpus,
    "index": ExactIndex(embeddings),
    "embeddings": embeddings,
    "retriever_params": params,
  }
  for name, value in fields.items():
    object.__setattr__(made, name, value)
  return made


def shapes(batch):
  return jax.tree.map(np.shape, batch)


@pytest.mark.parametrize("stage", ["ict", "dpr", "mlm"])
def test_a_stage_without_retrieval_feeds_announced_shapes(make_run, stage):
  opened = stages.open_stage(make_run(stage))
  batch = opened.prepare(next(opened.batches()), None)
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  assert opened.probe is None


def test_dpr_asks_several_questions_of_each_passage(make_run):
  run = make_run("dpr", dpr=DprConfig(questions=3, same_title=2))
  opened = stages.open_stage(run)
  batch = opened.prepare(next(opened.batches()), None)
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  assert len(batch["query"]["order"]) == 3 * run.batch_size
  assert len(batch["passage"]["order"]) == run.batch_size


@pytest.mark.parametrize("together", [1, 3])
def test_dpr_batches_hold_wrong_passages_that_the_version_finds(
  make_run, version, together
):
  dpr = DprConfig(negatives=2, search=10, questions=together)
  run = make_run("dpr", dpr=dpr)
  opened = stages.open_stage(run)
  examples = next(opened.batches())
  batch = opened.prepare(examples, version)
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  queries = all_rows(examples["query"])
  found = opened._searcher.search(queries, version, 10).ids
  rows = batch["passage_row"].reshape(8, 3)
  np.testing.assert_array_equal(rows[:, 0], examples["passage_row"])
  found = found.reshape(8, together, 10).swapaxes(1, 2).reshape(8, -1)
  for numbers, ids, best in zip(examples["index"], rows, found, strict=True):
    own, *wrong = ids.tolist()
    questions = [opened._questions[number] for number in numbers.tolist()]
    expected = [
      row
      for row in dict.fromkeys(best.tolist())
      if row != own
      and not any(
        occurs(each, opened.corpus.passage(row).text) for each in questions
      )
    ]
    # Copies of the own passage fill the places that are left.
    assert wrong == [*expected, own, own][:2]
  assert (rows[:, 1] != rows[:, 0]).any()
  assert opened.probe(version, version)["swap/overlap_at_k"] == 1.0


def test_a_corpus_with_less_than_is_searched_is_refused(make_run):
  run = make_run("dpr", dpr=DprConfig(negatives=2, search=9999))
  with pytest.raises(ValueError, match=r"dpr.search \(9999\) exceeds"):
    stages.open_stage(run)


def test_realm_batches_have_announced_shapes_and_no_own_passage(
  make_run, version
):
  run = make_run("realm")
  opened = stages.open_stage(run)
  announced = [shapes(batch) for batch in opened.shapes()]
  data = opened.batches()
  for _ in range(3):
    batch = opened.prepare(next(data), version)
    assert shapes(batch) in announced
    assert batch["candidate_mask"].all()


class _FirstRows:
  """Finds the first passages of the corpus, whatever is asked."""

  def search(self, queries, k):
    ids = np.tile(np.arange(k, dtype=np.int32), (len(queries), 1))
    return Neighbors(ids, np.zeros(ids.shape, np.float32))


def test_the_leak_is_told_and_stopped_on_request(
  make_run, version, tiny_corpus, tmp_path
):
  """Texts of the corpus' first passages, which no uid says they are of."""
  texts = [tiny_corpus.passage(row).text for row in range(3)]
  path = tmp_path / "texts.jsonl"
  path.write_text("\n".join(json.dumps({"text": text}) for text in texts * 8))
  object.__setattr__(version, "index", _FirstRows())
  run = make_run("realm")
  run = dataclasses.replace(
    run, data=dataclasses.replace(run.data, train=str(path))
  )

  def batch(**retrieval):
    changed = dataclasses.replace(run.retrieval, num_candidates=4, **retrieval)
    opened = stages.open_stage(dataclasses.replace(run, retrieval=changed))
    return opened.prepare(next(opened.batches()), version)

  leaking, clean = batch(), batch(exclude_overlap=0.5)
  # Of three candidates, one is the text itself.
  assert (leaking["own_words"].sum(axis=1) >= 1).all()
  assert not leaking["own_words"][:, 0].any()
  assert not clean["own_words"].any()
  assert clean["candidate_mask"].all()  # The next ones took their places.


def test_search_on_the_devices_makes_the_same_batches_as_exact_search(
  make_run, version
):
  opened = stages.open_stage(make_run("realm"))
  examples = next(opened.batches())
  index = DeviceIndex(
    version.embeddings, sharding.local_mesh(), "float32", False
  )
  on_devices = copy.copy(version)
  object.__setattr__(on_devices, "index", index)
  jax.tree.map(
    np.testing.assert_array_equal,
    opened.prepare(examples, on_devices),
    opened.prepare(examples, version),
  )


@pytest.fixture
def edited(version, tiny_corpus, tmp_path):
  """The version over a corpus whose rows are others; 0 and 1 are gone."""
  edits = [{"uid": f"country-{i}", "remove": True} for i in (0, 1)]
  edits.append({"uid": "country-40", "title": "Ba", "text": "Kodia is free."})
  path = tmp_path / "edits.jsonl"
  path.write_text("".join(json.dumps(edit) + "\n" for edit in edits))
  corpus = apply_edits(
    tiny_corpus, read_edits(tiny_corpus, path), tmp_path / "edited"
  )
  rng = np.random.default_rng(3)
  vectors = rng.normal(size=(len(corpus), 8)).astype(np.float32)
  embeddings = Embeddings([vectors])
  return replaced(
    version,
    version="00000000-11111111",
    corpus=corpus,
    embeddings=embeddings,
    index=ExactIndex(embeddings),
  )


def test_realm_batches_hold_the_passages_of_the_index_s_corpus_but_the_own(
  make_run, version, edited, monkeypatch
):
  opened = stages.open_stage(make_run("realm"))
  announced = [shapes(batch) for batch in opened.shapes()]
  examples = next(opened.batches())
  # The first passage that is left; in the edited corpus it has another row.
  kept = np.flatnonzero(
    opened.corpus.rows_in(edited.corpus, np.arange(len(opened.corpus))) >= 0
  )
  examples["source_row"] = np.resize(kept[:3], 8).astype(np.int32)
  chosen = []
  real = stages.choose_candidates
  monkeypatch.setattr(
    stages,
    "choose_candidates",
    lambda *args: chosen.append(real(*args)) or chosen[-1],
  )
  everything = replaced(edited, index=Blind())
  batch = opened.prepare(examples, everything)

  assert shapes(batch) in announced
  (found,) = chosen
  assert found.mask.all()
  own = [opened.corpus.passage(row).uid for row in examples["source_row"]]
  for uid, rows in zip(own, found.rows, strict=True):
    assert uid not in [p.uid for p in edited.corpus.passages(rows)]
  texts = {tuple(edited.corpus.body_ids(row)) for row in np.unique(found.rows)}
  laid = batch["passages"]
  bodies = {
    tuple(line[(owner == slot) & (segments == 1)].tolist()[:-1])
    for line, owner, segments in zip(
      laid["ids"], laid["mask"], laid["segments"], strict=True
    )
    for slot in range(1, owner.max() + 1)
  }
  assert bodies - {()} == texts  # The null document has no body.


def test_the_probe_follows_passages_by_uid(make_run, version, edited):
  opened = stages.open_stage(make_run("openqa"))
  first = opened.corpus.row_of("country-2")
  assert edited.corpus.row_of("country-2") < first
  # Both find their own first passages, of which the old one's two or more
  # are gone.
  new = replaced(edited, index=Blind())
  gold = opened.corpus.rows_in(edited.corpus, opened.probe._gold)
  figures = opened.probe(new, replaced(version, index=Blind()))
  assert figures["probe/recall_at_20"] == ((gold >= 0) & (gold < 20)).sum() / (
    (gold >= 0).sum()
  )
  same = opened.probe(edited, edited)["swap/overlap_at_k"]
  assert same == 1.0
  back = opened.probe(version, edited)["swap/overlap_at_k"]
  assert 0.0 < back < 1.0


def test_open_qa_batches_over_another_corpus_have_right_spans(make_run, edited):
  opened = stages.open_stage(make_run("openqa"))
  batch = opened.prepare(next(opened.batches()), edited)
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  has_span = batch["gold_spans"].any(axis=(2, 3))
  np.testing.assert_array_equal(has_span, batch["beam_has_answer"][:, :2])


def test_open_qa_batches_carry_the_beam_s_vectors_and_right_spans(
  make_run, version, tiny_corpus
):
  opened = stages.open_stage(make_run("openqa"))
  examples = next(opened.batches())
  batch = opened.prepare(examples, version)
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  found = {tuple(v) for v in np.asarray(version.embeddings)}
  assert all(tuple(v) in found for v in batch["beam_embs"][0])
  # A read passage with the answer has a gold span, and no other has.
  has_span = batch["gold_spans"].any(axis=(2, 3))
  np.testing.assert_array_equal(has_span, batch["beam_has_answer"][:, :2])


def replaced(original, **fields):
  """The version with other fields, made like the fixture."""
  made = object.__new__(IndexVersion)
  for name, value in (vars(original) | fields).items():
    object.__setattr__(made, name, value)
  return made


def test_the_probe_measures_recall_and_overlap(make_run, version):
  opened = stages.open_stage(make_run("openqa"))
  figures = opened.probe(version, version)
  assert figures["swap/overlap_at_k"] == 1.0
  assert 0 <= figures["probe/recall_at_1"] <= figures["probe/recall_at_20"] <= 1
  assert "swap/overlap_at_k" not in opened.probe(version, None)


class Blind:
  """An index that finds the first k passages, whatever is asked."""

  def search(self, queries, k):
    ids = np.tile(np.arange(k, dtype=np.int32), (len(queries), 1))
    return Neighbors(ids=ids, scores=np.zeros(ids.shape, np.float32))


def test_overlap_compares_the_old_search_with_exact_search_by_the_new_vectors(
  make_run, version, tiny_corpus
):
  rng = np.random.default_rng(1)
  vectors = rng.normal(size=(len(tiny_corpus), 8)).astype(np.float32)
  new = replaced(
    version, version="00000010-abcdef01", embeddings=Embeddings([vectors])
  )
  opened = stages.open_stage(make_run("openqa"))
  queries = opened._searcher.embed(opened.probe._rows, new)
  best = np.argsort(-(queries @ vectors.T), axis=1)[:, :20]

  # The new version's own searcher has no say in it.
  new = replaced(new, index=Blind())
  blind = replaced(version, index=Blind())
  found = opened.probe(new, blind)["swap/overlap_at_k"]
  assert found == pytest.approx((best < 20).mean())
  sighted = replaced(new, index=ExactIndex(new.embeddings))
  assert opened.probe(new, sighted)["swap/overlap_at_k"] == 1.0


def test_a_large_corpus_is_probed_with_fewer_queries(
  make_run, version, monkeypatch, tiny_corpus
):
  monkeypatch.setattr(probe, "_SCORES", 3 * len(tiny_corpus))
  opened = stages.open_stage(make_run("openqa"))
  searched = []
  real = ExactIndex.search
  monkeypatch.setattr(
    ExactIndex,
    "search",
    lambda self, queries, k: (
      searched.append(len(queries)) or real(self, queries, k)
    ),
  )
  opened.probe(version, version)
  assert searched == [16, 3, 3]  # For recall, then the fresh and the stale.


def test_without_validation_data_training_queries_tell_what_changed(
  make_run, version
):
  run = make_run("realm")
  assert not run.data.validation
  figures = stages.open_stage(run).probe(version, version)
  assert figures == {"swap/overlap_at_k": 1.0}


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(make_run):
  run = make_run("mlm")
  small = dataclasses.replace(run.encoder, vocab_size=100)
  with pytest.raises(ValueError, match=r"encoder.vocab_size \(100\) is below"):
    stages.open_stage(dataclasses.replace(run, encoder=small))


@pytest.mark.parametrize("key", ["tokenizer", "corpus"])
def test_missing_paths_are_named(make_run, key):
  run = make_run("mlm")
  data = dataclasses.replace(run.data, **{key: ""})
  with pytest.raises(ValueError, match=f"data.{key} must be set"):
    stages.open_stage(dataclasses.replace(run, data=data))


@pytest.mark.parametrize("stage", ["dpr", "openqa"])
def test_fine_tuning_needs_questions(make_run, stage):
  run = make_run(stage)
  data = dataclasses.replace(run.data, train="")
  with pytest.raises(ValueError, match=r"data\.train must name questions"):
    stages.open_stage(dataclasses.replace(run, data=data))


def test_bm25_batches_hold_what_it_finds_with_its_scores(make_run, tiny_corpus):
  run = make_run("openqa")
  run = dataclasses.replace(
    run,
    openqa=dataclasses.replace(run.openqa, retriever="bm25", beam=5000),
  )
  opened = stages.open_stage(run)
  examples = next(opened.batches())
  batch = opened.prepare(examples, None)

  assert opened.probe is None and not run.searches
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  questions = Questions(run.data.train)
  texts = [questions[int(i)].text for i in examples["index"]]
  found = Bm25Index.open(tiny_corpus).search(texts, 2)
  np.testing.assert_array_equal(batch["beam_scores"], found.scores)
  has_span = batch["gold_spans"].any(axis=(2, 3))
  np.testing.assert_array_equal(has_span, batch["beam_has_answer"])
  assert has_span.any()


def test_closed_book_batches_hold_questions_and_masks_alone(
  make_run, tiny_tokenizer
):
  run = make_run("openqa")
  run = dataclasses.replace(
    run, openqa=dataclasses.replace(run.openqa, retriever="none")
  )
  opened = stages.open_stage(run)
  batch = opened.prepare(next(opened.batches()), None)

  assert opened.probe is None and not run.searches
  assert shapes(batch) in [shapes(each) for each in opened.shapes()]
  assert sorted(batch) == ["joint", "positions", "target_mask", "targets"]
  assert batch["targets"].shape == (8, run.openqa.max_span)
  num_masks = (batch["joint"]["ids"] == tiny_tokenizer.mask_id).sum()
  assert num_masks == batch["targets"].size


def test_bm25_reads_the_passage_that_a_question_names_with_its_own_score(
  make_run, tiny_corpus, monkeypatch
):
  # It finds what nobody asked for.
  monkeypatch.setattr(
    Bm25Index, "search", lambda self, texts, k: Blind().search(texts, k)
  )
  run = make_run("openqa")
  openqa = dataclasses.replace(run.openqa, retriever="bm25", read_gold=True)
  opened = stages.open_stage(dataclasses.replace(run, openqa=openqa))
  examples = next(opened.batches())
  batch = opened.prepare(examples, None)

  index, questions = Bm25Index.open(tiny_corpus), Questions(run.data.train)
  for line, gold in enumerate(examples["gold_row"]):
    if gold not in (0, 1):
      own = index.scores(questions[int(examples["index"][line])].text)[gold]
      assert batch["beam_scores"][line, 1] == own > 0
      assert batch["gold_spans"][line, 1].any()


def drawn(run, first_step, num_steps, state=None):
  """This process' examples of some steps, fed ahead, and what is then saved."""
  data = stages.open_stage(run).batches()
  if state:
    data.set_state(state)
  ahead = LookAhead(
    data,
    lambda step: "",
    lambda examples, version: examples,
    first_step=first_step,
    num_steps=99,
    depth=2,
  )
  try:
    fed = [ahead.next() for _ in range(num_steps)]
  finally:
    ahead.close()
  return [each.batch for each in fed], fed[-1].data_state


@pytest.mark.parametrize("stage", ["ict", "dpr", "mlm", "realm", "openqa"])
def test_a_stopped_run_s_examples_go_on_over_other_processes(
  stage, make_run, monkeypatch
):
  run = make_run(stage)
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)
  expected, _ = drawn(run, 0, 6)
  found, state = drawn(run, 0, 2)
  shares = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  for process in range(2):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    share, after = drawn(run, 2, 3, state)
    shares.append(share)
  found += jax.tree.map(lambda *rows: np.concatenate(rows), *shares)
  monkeypatch.undo()
  found += drawn(run, 5, 1, after)[0]
  jax.tree.map(np.testing.assert_array_equal, found, expected)
