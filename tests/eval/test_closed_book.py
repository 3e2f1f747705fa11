# SPDX-License-Identifier: Apache-2.0
"""A tiny encoder that has learned ten questions by heart, and what it says."""

import dataclasses
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from realm_jax import checkpoints
from realm_jax import workdir as workdir_lib
from realm_jax.config import InitConfig, OptimizerConfig
from realm_jax.eval import open_qa, report
from realm_jax.eval.evaluate import evaluate
from realm_jax.eval.open_qa import open_answerer
from realm_jax.eval.probe import parse, probe
from realm_jax.index import builder
from realm_jax.models.reader import KnowledgeAugmentedEncoder
from realm_jax.train import initial, loop

STEPS = 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, run, write_lines):
  """The workdir of a run over questions with one answer each."""
  workdir = tmp_path_factory.mktemp("closed_book")
  lines = (data_dir / "questions.jsonl").read_text().splitlines()
  questions = [json.loads(line) for line in lines]
  for each in questions:
    each["answers"] = each["answers"][:1]
  path = write_lines(workdir / "questions.jsonl", questions)
  apt = dataclasses.replace(
    run.encoder,
    hidden_size=32,
    num_layers=2,
    norm="pre",
    init="copying",
    dropout=0.0,
    attention_dropout=0.0,
  )
  run = dataclasses.replace(
    run,
    stage="openqa",
    num_steps=STEPS,
    batch_size=8,
    checkpoint_every_steps=1000,
    encoder=apt,
    data=dataclasses.replace(run.data, train=path, validation=path),
    openqa=dataclasses.replace(run.openqa, retriever="none", max_span=8),
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
  )
  workdir_lib.claim(str(workdir), run, [])
  assert loop.train(run, str(workdir))
  return str(workdir)


@pytest.fixture(scope="module")
def answerer(trained):
  return open_answerer(trained)


PERU = "Which is the capital of Peru?"


def test_it_answers_what_it_was_trained_on(trained, tmp_path):
  figures = evaluate(
    trained,
    questions=f"{trained}/questions.jsonl",
    predictions=str(tmp_path / "found.jsonl"),
  )
  # "São Tomé" is written without its accents: the vocabulary has none.
  assert figures["exact_match"] == figures["f1"] == 0.9
  assert figures["intervals"].keys() == {"exact_match", "f1"}
  assert not [name for name in figures if "recall" in name or "oracle" in name]
  assert figures["step"] == STEPS and figures["num_examples"] == 10


def test_an_answer_is_what_each_mask_holds_up_to_the_end_piece(
  trained, answerer, tokenizer
):
  run = workdir_lib.load(trained)
  module = KnowledgeAugmentedEncoder(run.encoder)
  params = checkpoints.restore_params(trained, STEPS, "encoder")
  apply = jax.jit(functools.partial(module.apply, deterministic=True))
  texts = [PERU, "Which is the capital of Trinidad and Tobago?"]
  for text, answered in zip(texts, answerer.answer(texts), strict=True):
    pieces = tokenizer.encode(text).ids
    first, masks = 1 + len(pieces), [tokenizer.mask_id] * 8
    ids = [tokenizer.cls_id, *pieces, *masks, *[tokenizer.sep_id] * 2]
    log_probs = jax.nn.log_softmax(
      apply(
        {"params": params},
        ids=jnp.array([ids]),
        segments=jnp.zeros((1, len(ids)), int).at[0, -1].set(1),
        mask=jnp.ones((1, len(ids)), bool),
        positions=jnp.arange(first, first + 8)[None],
      )[0]
    )
    best = np.asarray(log_probs.argmax(-1)).tolist()
    end = [*best, tokenizer.sep_id].index(tokenizer.sep_id)
    (answer,) = answered.answers
    assert answer.text == tokenizer.decode(best[:end])
    wanted = log_probs.max(-1)[: end + 1].sum()
    assert answer.score == pytest.approx(float(wanted), abs=1e-3)
    assert answer.probability == pytest.approx(np.exp(answer.score))
    assert answer.evidence == ()


def test_an_answer_does_not_depend_on_the_questions_beside_it(answerer):
  texts = [PERU, "Which is the capital of Spain?"] * 20  # Two batches.
  together = answerer.answer(texts)
  assert [each.question for each in together] == texts
  for alone, one, other in zip(
    answerer.converse(texts[:2]), together[:2], together[-2:], strict=True
  ):
    assert alone.answers[0].text == one.answers[0].text
    assert alone.answers[0].text == other.answers[0].text


def test_what_is_shown_has_no_evidence(answerer):
  out = io.StringIO()
  for answered in answerer.answer([PERU]):
    open_qa.show(answered, Console(file=out, width=200))
  assert "1. lima   probability 0." in out.getvalue()
  assert "p(z|x)" not in out.getvalue()


def test_nothing_but_an_end_is_no_answer(answerer, tokenizer):
  nothing = np.full(8, tokenizer.sep_id), np.zeros(8, np.float32)
  assert answerer._answers(*nothing) == ()
  unended = np.full(8, tokenizer.encode("rome").ids[0]), np.zeros(8, "f4")
  assert len(answerer._answers(*unended)) == 1


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ({"retriever": "dense"}, "leave out --retriever=dense"),
    ({"retriever": "gold"}, "leave out --retriever=gold"),
    ({"read": 3, "corpus": "x"}, "leave out --corpus=x, --read=3"),
  ],
)
def test_what_needs_passages_is_refused(trained, flags, message):
  with pytest.raises(ValueError, match=message):
    evaluate(trained, questions=f"{trained}/questions.jsonl", **flags)


def test_to_ask_needs_no_passages_either(trained):
  with pytest.raises(ValueError, match="leave out --read=3"):
    open_answerer(trained, read=3)


def test_there_is_no_index_to_build(trained):
  with pytest.raises(ValueError, match="no retriever of vectors"):
    builder.build_index(trained)


def test_a_page_shows_its_answers_without_passages(trained):
  page = report.write_report(trained).read_text()
  assert "Answered <b" in page and "lima" in page
  assert "Evidence z" not in page and "p(z|x)" not in page
  assert "Refresh" not in page


def test_it_starts_from_an_encoder_with_its_head(run, workdirs):
  run = dataclasses.replace(
    run,
    stage="openqa",
    openqa=dataclasses.replace(run.openqa, retriever="none"),
    init=InitConfig(encoder=workdirs["mlm"]),
  )
  params = initial.stage_params(run, jax.random.key(0))
  assert list(params) == ["encoder"]
  before = checkpoints.restore_params(workdirs["mlm"], 7, "encoder")
  jax.tree.map(np.testing.assert_array_equal, params["encoder"], before)


def test_a_probe_gives_the_filled_in_answer_the_probability_it_had(
  trained, answerer
):
  (answer,) = answerer.answer([PERU])[0].answers
  (right,) = probe(trained, [parse(f"{PERU} [[{answer.text}]]")])
  assert right.answer_prob == pytest.approx(answer.probability, rel=1e-4)
  assert right.prediction == answer.text and right.right
  assert right.candidates == () and right.retrieval_utility is None
  (wrong,) = probe(trained, [parse(f"{PERU} [[Rome]]")])
  assert wrong.answer_prob < right.answer_prob and not wrong.right


@pytest.mark.parametrize(
  "asked", [{"passages": ["Lima."]}, {"candidates": 3}, {"corpus": "x"}]
)
def test_a_probe_is_not_given_passages_either(trained, asked):
  with pytest.raises(ValueError, match="reads no passages, so leave out --"):
    list(probe(trained, [], **asked))
