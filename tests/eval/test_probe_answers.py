# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import checkpoints, config
from realm_jax import workdir as workdir_lib
from realm_jax.data import collate
from realm_jax.eval.open_qa import QuestionAnswerer
from realm_jax.eval.probe import parse, probe
from realm_jax.eval.probe_answers import read_question
from realm_jax.models.embedder import Embedder
from realm_jax.models.reader import SpanReader

_QUESTION = "Which is the capital of Chad?"
_TEXT = f"{_QUESTION} [[Rome]]"


def _probe(workdir, text=_TEXT, **options):
  (found,) = probe(workdir, [parse(text)], **options)
  return found


@pytest.fixture(scope="module")
def probed(workdirs):
  """Of every passage of the corpus, so the answer is in some."""
  return _probe(workdirs["openqa"], candidates=30)


def _one(row):
  return {name: jnp.asarray(leaf)[None] for name, leaf in row.items()}


def _spans(run, workdir, corpus, tokenizer):
  """Reads one passage at a time: -> [(pieces, score)] of all its spans."""
  params = checkpoints.restore_params(workdir, run.num_steps, "reader")
  width = run.openqa.max_span
  module = SpanReader(
    run.encoder, max_span=width, span_width=run.openqa.span_width
  )

  @jax.jit
  def read(row, block_mask):
    return module.apply(
      {"params": params}, **row, block_mask=block_mask, deterministic=True
    )[0]

  query = collate.query_row(
    tokenizer.encode(_QUESTION).ids, tokenizer, run.lengths.query
  )
  first = int(query["mask"].sum())

  def spans(uid):
    body = corpus.body_ids(corpus.row_of(uid))
    joint = collate.joint_row(query, body, tokenizer, run.lengths.joint)
    block_mask = np.zeros((1, run.lengths.joint), bool)
    block_mask[0, first : first + len(body)] = True
    scores = np.asarray(read(_one(joint), jnp.asarray(block_mask)), np.float64)
    return [
      (body[start:end].tolist(), scores[first + start, end - start - 1])
      for start in range(len(body))
      for end in range(start + 1, min(start + width, len(body)) + 1)
    ]

  return spans


def test_probabilities_are_the_mentions_share_of_all_spans(
  workdirs, run, corpus, tokenizer, probed
):
  spans = _spans(run, workdirs["openqa"], corpus, tokenizer)
  wanted = tokenizer.encode("Rome").ids.tolist()
  found = QuestionAnswerer.open(workdirs["openqa"]).find([_QUESTION])
  logits = found.scores[0].astype(np.float64)

  assert [corpus.row_of(c.uid) for c in probed.candidates] == list(found.ids[0])
  probs = np.exp(logits) / np.exp(logits).sum()
  np.testing.assert_allclose(
    [c.retrieval_prob for c in probed.candidates], probs, rtol=1e-4
  )
  gold, total = [], []
  for candidate in probed.candidates:
    of_passage = spans(candidate.uid)
    mass = sum(np.exp(score) for _, score in of_passage)
    right = sum(np.exp(score) for ids, score in of_passage if ids == wanted)
    assert candidate.answer_prob == pytest.approx(right / mass, rel=1e-3)
    best, _ = max(of_passage, key=lambda span: span[1])
    assert candidate.prediction == tokenizer.decode(best)
    gold.append(right)
    total.append(mass)
  assert 0 < np.count_nonzero(gold) < len(corpus)
  share = np.dot(np.exp(logits), gold) / np.dot(np.exp(logits), total)
  assert probed.answer_prob == pytest.approx(share, rel=1e-3)
  assert probed.retrieval_utility is None
  assert not any(candidate.is_null for candidate in probed.candidates)


def test_as_many_passages_are_read_as_in_training(workdirs, run, probed):
  found = _probe(workdirs["openqa"])
  assert len(found.candidates) == run.openqa.read
  for few, many in zip(found.candidates, probed.candidates, strict=False):
    assert few.uid == many.uid and few.prediction == many.prediction
    assert few.retrieval_prob == pytest.approx(many.retrieval_prob, rel=1e-4)
    assert few.answer_prob == pytest.approx(many.answer_prob, rel=1e-3)
  (asked,) = QuestionAnswerer.open(workdirs["openqa"]).answer([_QUESTION])
  assert found.prediction == asked.answers[0].text
  right = _probe(workdirs["openqa"], f"{_QUESTION} [[{found.prediction}]]")
  assert right.right and not found.right
  assert right.answer_prob > found.answer_prob


def test_passages_that_are_given_are_weighed_by_the_towers(
  tmp_path, workdirs, run, tokenizer, probed
):
  """No index is needed."""
  workdir = tmp_path / "run"
  shutil.copytree(
    workdirs["openqa"], workdir, ignore=shutil.ignore_patterns("index")
  )
  kept = [c for c in probed.candidates if c.answer_prob][:2]
  kept += [c for c in probed.candidates if not c.answer_prob][:1]
  found = _probe(str(workdir), passages=[c.text for c in kept])

  params = checkpoints.restore_params(workdir, run.num_steps, "retriever")

  def embed(side, row):
    return Embedder(run.embedder).apply(
      {"params": params[side]}, **_one(row), deterministic=True
    )[0]

  def pieces(text):
    return tokenizer.encode(text).ids

  query = collate.query_row(pieces(_QUESTION), tokenizer, run.lengths.query)
  no_title = np.zeros(0, np.int32)
  logits = [
    float(
      embed("query", query)
      @ embed(
        "document",
        collate.passage_row(no_title, pieces(c.text), tokenizer, 56),
      )
    )
    / run.embedder.temperature
    for c in kept
  ]
  np.testing.assert_allclose(
    [c.retrieval_prob for c in found.candidates],
    np.exp(logits) / np.exp(logits).sum(),
    rtol=1e-3,
  )
  for given, one in zip(found.candidates, kept, strict=True):
    assert given.answer_prob == pytest.approx(one.answer_prob, rel=1e-3)
    assert given.prediction == one.prediction
  assert 0 < found.answer_prob < max(c.answer_prob for c in kept)


def test_words_do_not_weigh_passages_of_no_corpus(
  tmp_path, workdirs, corpus, run
):
  workdir = tmp_path / "run"
  shutil.copytree(workdirs["openqa"], workdir)
  changed = dataclasses.replace(
    workdir_lib.load(workdir),
    openqa=dataclasses.replace(run.openqa, retriever="bm25"),
  )
  (workdir / "config.json").write_text(config.dumps(changed))
  text = "What of Italy? [[Rome]]"

  found = _probe(str(workdir), text)
  assert found.candidates[0].title == "Italy"
  assert found.candidates[0].answer_prob > 0 and found.answer_prob > 0
  given = _probe(
    str(workdir), text, passages=[c.text for c in found.candidates]
  )
  for own, one in zip(given.candidates, found.candidates, strict=True):
    assert own.answer_prob == pytest.approx(one.answer_prob, rel=1e-3)
    assert own.retrieval_prob is None
  assert given.answer_prob is None and given.prediction is None


def test_the_question_is_what_stands_around_its_answer(tokenizer):
  text = parse("The capital of Italy: [[Rome]]. Right?")
  question, answer = read_question(text, tokenizer, 6)
  assert (question, answer) == ("The capital of Italy: . Right?", "Rome")


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("[[Rome]]", "answer alone"),
    ("Who? [[Rome Lima Rome Lima Rome Lima Rome]]", "1 to 6 .openqa.max_span"),
    ("Who? [[☃]]", "not in the run's vocabulary"),
  ],
)
def test_a_question_has_an_answer_that_can_be_read(tokenizer, text, reason):
  with pytest.raises(ValueError, match=reason):
    read_question(parse(text), tokenizer, 6)


def test_a_question_and_a_passage_must_fit_the_reader_together(
  tmp_path, workdirs, run
):
  workdir = tmp_path / "run"
  shutil.copytree(workdirs["openqa"], workdir)
  tight = dataclasses.replace(
    workdir_lib.load(workdir),
    lengths=dataclasses.replace(run.lengths, joint=58),
  )
  (workdir / "config.json").write_text(config.dumps(tight))
  with pytest.raises(ValueError, match=r"A text of .* 58 \(lengths.joint\)"):
    _probe(
      str(workdir),
      f"Which is it, then, of Trinidad and Tobago? {_TEXT}",
      passages=["Lima is here. " * 8],
    )
