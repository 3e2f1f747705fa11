# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from realm_jax import checkpoints, config
from realm_jax import workdir as workdir_lib
from realm_jax.data import collate
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.corpus_edits import apply_edits, read_edits
from realm_jax.data.records import Document
from realm_jax.eval import open_qa, scores
from realm_jax.eval.open_qa import QuestionAnswerer
from realm_jax.eval.predictions import Answer, AnsweredQuestion, Evidence
from realm_jax.eval.questions import evaluate_questions
from realm_jax.index import builder, move
from realm_jax.models.embedder import Embedder
from realm_jax.models.reader import SpanReader

_QUESTIONS = [
  "Which is the capital of Chad?",
  "What borders the sea?",
  "Which is the capital of São Tomé and Príncipe?",
]


_KINDS = ("capital", "borders")


@pytest.fixture(scope="module")
def answerer(workdirs):
  return QuestionAnswerer.open(workdirs["openqa"])


def _slow_spans(run, workdir, corpus, tokenizer, question):
  """{(row, start character, end): score} of all spans that are read."""
  towers = checkpoints.restore_params(workdir, run.num_steps, "retriever")
  reader = checkpoints.restore_params(workdir, run.num_steps, "reader")
  module = SpanReader(
    run.encoder,
    max_span=run.openqa.max_span,
    span_width=run.openqa.span_width,
  )

  @jax.jit
  def embed(params, row):
    return Embedder(run.embedder).apply(
      {"params": params}, **row, deterministic=True
    )[0]

  @jax.jit
  def read(row, block_mask):
    return module.apply(
      {"params": reader}, **row, block_mask=block_mask, deterministic=True
    )[0]

  query = collate.query_row(
    tokenizer.encode(question).ids, tokenizer, run.lengths.query
  )
  question_emb = embed(towers["query"], _batch_of_one(query))
  relevance = []
  for row in range(len(corpus)):
    passage = collate.passage_row(
      corpus.title_ids(row), corpus.body_ids(row), tokenizer, 56
    )
    emb = embed(towers["document"], _batch_of_one(passage))
    relevance.append(float(question_emb @ emb) / run.embedder.temperature)
  found = {}
  first = int(query["mask"].sum())
  for row in np.argsort(relevance)[::-1][: run.openqa.read].tolist():
    text = corpus.passage(row).text
    pieces = tokenizer.encode(text)
    joint = collate.joint_row(
      query, corpus.body_ids(row), tokenizer, run.lengths.joint
    )
    block_mask = np.zeros((1, run.lengths.joint), bool)
    block_mask[0, first : first + len(pieces)] = True
    read_scores = read(_batch_of_one(joint), jnp.asarray(block_mask))
    for start in range(len(pieces)):
      for end in range(start, min(start + run.openqa.max_span, len(pieces))):
        characters = (int(pieces.starts[start]), int(pieces.ends[end]))
        found[(row, *characters)] = relevance[row] + float(
          read_scores[first + start, end - start]
        )
  return found, relevance


def _batch_of_one(row):
  return {name: jnp.asarray(leaf)[None] for name, leaf in row.items()}


def test_answers_equal_those_of_one_passage_at_a_time(
  workdirs, answerer, run, corpus, tokenizer
):
  for question, answered in zip(
    _QUESTIONS, answerer.answer(_QUESTIONS), strict=True
  ):
    spans, relevance = _slow_spans(
      run, workdirs["openqa"], corpus, tokenizer, question
    )
    total = np.logaddexp.reduce(list(spans.values()))
    best = sorted(spans, key=lambda span: -spans[span])[:64]
    by_text = {}
    for row, start, end in best:
      text = corpus.passage(row).text[start:end]
      by_text.setdefault(scores.normalise_answer(text) or text, []).append(
        spans[row, start, end]
      )
    sums = {text: np.logaddexp.reduce(s) for text, s in by_text.items()}
    wanted = sorted(sums, key=lambda text: -sums[text])[:5]

    assert answered.question == question
    got = [scores.normalise_answer(a.text) or a.text for a in answered.answers]
    assert got == wanted
    for text, answer in zip(wanted, answered.answers, strict=True):
      assert answer.score == pytest.approx(sums[text], abs=1e-3)
      assert answer.probability == pytest.approx(
        np.exp(sums[text] - total), rel=1e-3
      )
      for evidence in answer.evidence:
        row = corpus.row_of(evidence.uid)
        assert evidence.span_score == pytest.approx(
          spans[row, evidence.start, evidence.end], abs=1e-3
        )
        share = np.exp(relevance[row] - np.logaddexp.reduce(relevance))
        assert evidence.retrieval_prob == pytest.approx(share, rel=1e-3)


def test_answers_are_the_passages_own_characters(answerer, corpus):
  for answered in answerer.answer(_QUESTIONS):
    for answer in answered.answers:
      for evidence in answer.evidence:
        passage = corpus.passage(corpus.row_of(evidence.uid))
        assert (evidence.title, evidence.text) == (passage.title, passage.text)
      best = answer.evidence[0]
      assert best.text[best.start : best.end] == answer.text


def test_an_answer_does_not_depend_on_the_questions_beside_it(answerer):
  together = answerer.answer(_QUESTIONS * 4)
  alone = answerer.answer(_QUESTIONS[:1])[0]
  assert len(together) == 12
  for same in (together[0], together[9]):
    assert [a.text for a in same.answers] == [a.text for a in alone.answers]
    np.testing.assert_allclose(
      [a.probability for a in same.answers],
      [a.probability for a in alone.answers],
      rtol=1e-4,
    )


def test_a_corpus_smaller_than_what_is_read_leaves_no_empty_answers(
  tmp_path, workdirs, tokenizer
):
  document = Document(title="Malta", text="Capital: Valletta.", uid="Malta")
  build_corpus([document], tokenizer, tmp_path / "small", max_pieces=56)
  builder.build_index(workdirs["openqa"], corpus=str(tmp_path / "small"))

  answerer = QuestionAnswerer.open(
    workdirs["openqa"], corpus=str(tmp_path / "small")
  )

  (answered,) = answerer.answer(_QUESTIONS[:1])
  assert {e.uid for a in answered.answers for e in a.evidence} == {"Malta"}
  assert sum(a.probability for a in answered.answers) <= 1 + 1e-6
  assert answered.answers[0].evidence[0].retrieval_prob == pytest.approx(1.0)


def test_what_is_cut_off_inside_a_word_gives_no_answer(
  tmp_path, workdirs, tokenizer
):
  long_word = "tareno" * 15
  document = Document(title="Malta", text=long_word, uid="Malta")
  small = build_corpus([document], tokenizer, tmp_path / "long", max_pieces=24)
  whole = [
    np.array_equal(
      tokenizer.encode(small.passage(row).text).ids, small.body_ids(row)
    )
    for row in range(len(small))
  ]
  assert not all(whole)
  builder.build_index(workdirs["openqa"], corpus=str(tmp_path / "long"))
  answerer = QuestionAnswerer.open(
    workdirs["openqa"], corpus=str(tmp_path / "long")
  )
  (answered,) = answerer.answer(["Rome?"])
  of_whole = {small.passage(row).uid for row in np.flatnonzero(whole)}
  assert {e.uid for a in answered.answers for e in a.evidence} <= of_whole


@pytest.mark.parametrize("stage", ["ict", "mlm", "realm"])
def test_a_run_without_a_span_reader_says_what_is_needed(workdirs, stage):
  with pytest.raises(ValueError, match=f"'{stage}'.*stage 'openqa'"):
    QuestionAnswerer.open(workdirs[stage])


@pytest.mark.parametrize("trained", [False, True])
def test_an_index_of_trained_documents_is_searched_with_its_own_query_tower(
  tmp_path, workdirs, run, answerer, trained
):
  """Its query tower is an older one than the checkpoint's."""
  workdir = tmp_path / "run"
  shutil.copytree(workdirs["openqa"], workdir)
  openqa = dataclasses.replace(run.openqa, train_documents=trained)
  changed = dataclasses.replace(
    workdir_lib.load(workdir), openqa=openqa, num_steps=run.num_steps + 1
  )
  (workdir / "config.json").write_text(config.dumps(changed))
  params = {
    name: checkpoints.restore_params(workdir, run.num_steps, name)
    for name in ("retriever", "reader")
  }
  params["retriever"] = jax.tree.map(lambda x: -2 * x, params["retriever"])
  with checkpoints.CheckpointWriter(workdir, keep=2) as writer:
    writer.save(
      run.num_steps + 1,
      {"params": params},
      checkpoints.RunPosition(data_state={}),
    )
  found = QuestionAnswerer.open(str(workdir)).find(_QUESTIONS)
  same = np.array_equal(found.scores, answerer.find(_QUESTIONS).scores)
  assert same == trained


def test_a_corpus_without_an_index_says_how_to_build_one(
  tmp_path, workdirs, tokenizer
):
  document = Document(title="Malta", text="Capital: Valletta, too.", uid="x")
  build_corpus([document], tokenizer, tmp_path / "new", max_pieces=56)
  with pytest.raises(FileNotFoundError, match="realm build-index"):
    QuestionAnswerer.open(workdirs["openqa"], corpus=str(tmp_path / "new"))


def test_a_conversation_goes_over_to_the_next_corpus(
  tmp_path, write_lines, workdirs, corpus
):
  workdir = tmp_path / "openqa"
  shutil.copytree(workdirs["openqa"], workdir)
  run = workdir_lib.load(workdir)
  small = dataclasses.replace(run.openqa, beam=5)
  run = dataclasses.replace(run, openqa=small)
  (workdir / "config.json").write_text(config.dumps(run))
  removed = {f"{c}/{what}" for c in ("Chad", "Peru") for what in _KINDS}
  edits = [{"uid": uid, "remove": True} for uid in sorted(removed)]
  path = write_lines(tmp_path / "edits.jsonl", edits)
  edited = apply_edits(corpus, read_edits(corpus, path), tmp_path / "edited")
  answerer = QuestionAnswerer.open(str(workdir))
  staying = QuestionAnswerer.open(str(workdir), corpus=str(corpus.directory))

  def questions():
    yield _QUESTIONS[0]
    move.use_corpus(workdir, edited.directory)
    yield _QUESTIONS[0]  # There is no index of it yet.
    builder.build_index(workdir)
    yield _QUESTIONS[0]

  first, second, third = answerer.converse(questions())
  assert second == first
  assert answerer.corpus.fingerprint == edited.fingerprint
  assert third.answers
  evidence = [e.uid for answer in third.answers for e in answer.evidence]
  assert not removed.intersection(evidence)
  assert list(staying.converse(_QUESTIONS[:1])) == [first]
  figures, _ = evaluate_questions(
    str(workdir),
    write_lines(
      tmp_path / "q.jsonl", [{"question": _QUESTIONS[0], "answers": ["x"]}]
    ),
    corpus="",
    step=0,
    limit=0,
  )
  assert figures["corpus"] == str(edited.directory)


def test_what_is_shown_names_answers_and_passages_and_reads_no_markup():
  evidence = Evidence(
    uid="Italy/capital",
    title="Italy",
    text="[bold]Capital[/bold]: Rome.",
    start=22,
    end=26,
    retrieval_prob=0.875,
    span_score=1.0,
  )
  answer = Answer(
    text="Rome", score=1.5, probability=0.625, evidence=(evidence,)
  )
  out = io.StringIO()
  console = Console(file=out, width=200)

  open_qa.show(AnsweredQuestion(question="[q]?", answers=(answer,)), console)
  open_qa.show(AnsweredQuestion(question="And?", answers=()), console)

  shown = out.getvalue()
  assert "[q]?" in shown and "[bold]Capital[/bold]: Rome." in shown
  assert "1. Rome   probability 0.625, score 1.50" in shown
  assert "Italy [Italy/capital], p(z|x) 0.875" in shown
  assert "no answer" in shown
