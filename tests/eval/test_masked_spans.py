# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import checkpoints
from realm_jax.data import collate
from realm_jax.data.collate import query_rows
from realm_jax.data.pretrain import MaskedTexts
from realm_jax.eval import masked_spans
from realm_jax.eval.retriever import Retriever
from realm_jax.index.corpora import Corpora
from realm_jax.models.embedder import Embedder
from realm_jax.models.reader import KnowledgeAugmentedEncoder


def _evaluate(workdirs, stage, data_dir, limit=0):
  return masked_spans.evaluate_spans(
    workdirs[stage],
    str(data_dir / "texts.jsonl"),
    corpus="",
    step=0,
    limit=limit,
  )


@pytest.fixture(scope="module")
def spans(data_dir, run, tokenizer, corpus):
  texts = MaskedTexts(str(data_dir / "texts.jsonl"))
  return masked_spans.read_spans(texts, run, tokenizer, corpus)


def test_the_first_span_is_masked_and_nothing_of_it_is_left(spans, tokenizer):
  for span in spans:
    whole = tokenizer.encode(span.before + span.answer + span.after).ids
    masked = span.masked.ids
    places = np.flatnonzero(masked == tokenizer.mask_id)
    np.testing.assert_array_equal(whole[places], span.target)
    np.testing.assert_array_equal(
      np.delete(masked, places), np.delete(whole, places)
    )
    assert span.before.startswith("The capital of") and span.after == "."


def test_texts_without_a_span_in_reach_are_left_out(
  tmp_path, write_lines, run, tokenizer, corpus
):
  path = write_lines(
    tmp_path / "texts.jsonl",
    [
      {"text": "no name here at all", "spans": []},
      {"text": "a" + " so" * 60 + " Rome.", "spans": [[182, 186]]},
      {"text": "We saw Rome there, and Peru.", "spans": [[7, 11], [23, 27]]},
      {"text": "We saw Rome there."},  # Tagged by rule.
    ],
  )
  found = masked_spans.read_spans(MaskedTexts(path), run, tokenizer, corpus)
  assert [span.answer for span in found] == ["Rome", "Rome"]


def test_an_unknown_passage_is_named_with_its_line(
  tmp_path, write_lines, run, tokenizer, corpus
):
  good = {"text": "In Rome.", "spans": [[3, 7]]}
  path = write_lines(
    tmp_path / "texts.jsonl", [good, {**good, "passage_uid": "Atlantis"}]
  )
  with pytest.raises(ValueError, match=r"texts\.jsonl:2: .*'Atlantis'"):
    masked_spans.read_spans(MaskedTexts(path), run, tokenizer, corpus)


def test_data_without_any_span_is_an_error(tmp_path, write_lines, workdirs):
  path = write_lines(tmp_path / "t.jsonl", [{"text": "so", "spans": []}])
  with pytest.raises(ValueError, match="no span within the query's 40 tokens"):
    masked_spans.evaluate_spans(
      workdirs["realm"], path, corpus="", step=0, limit=0
    )


def _batch_of_one(row):
  return {name: jnp.asarray(leaf)[None] for name, leaf in row.items()}


def _slow_reading(run, workdir, span, rows, corpus, tokenizer):
  """p(z|x) [K] and log p(. | z, x) [K, m, V], a candidate at a time."""
  params = {
    part: checkpoints.restore_params(workdir, run.num_steps, part)
    for part in ("retriever", "encoder")
  }

  @jax.jit
  def embed(row):
    return Embedder(run.embedder).apply(
      {"params": params["retriever"]["shared"]},
      **row,
      deterministic=True,
    )[0]

  @jax.jit
  def read(row, positions):
    return KnowledgeAugmentedEncoder(run.encoder).apply(
      {"params": params["encoder"]},
      **row,
      positions=positions,
      deterministic=True,
    )[0]

  query = collate.query_row(span.masked.ids, tokenizer, run.lengths.query)
  masks = np.flatnonzero(query["ids"] == tokenizer.mask_id)
  scores, log_probs = [], []
  for row in rows:
    title = corpus.title_ids(row) if row >= 0 else np.zeros(0, np.int32)
    body = corpus.body_ids(row) if row >= 0 else np.zeros(0, np.int32)
    passage = collate.passage_row(title, body, tokenizer, run.lengths.passage)
    scores.append(
      float(embed(_batch_of_one(query)) @ embed(_batch_of_one(passage)))
    )
    joint = collate.joint_row(query, body, tokenizer, run.lengths.joint)
    logits = read(_batch_of_one(joint), jnp.asarray(masks)[None])
    log_probs.append(jax.nn.log_softmax(logits, axis=-1))
  weights = np.exp(np.array(scores) / run.embedder.temperature)
  return weights / weights.sum(), np.array(log_probs)


def test_predictions_equal_those_of_one_candidate_at_a_time(
  workdirs, data_dir, run, corpus, tokenizer, spans
):
  figures, found = _evaluate(workdirs, "realm", data_dir)

  for span, prediction in list(zip(spans, found, strict=True))[::3]:
    rows = [-1] + [corpus.row_of(c.uid) for c in prediction.candidates[1:]]
    assert len(rows) == run.retrieval.num_candidates
    probs, log_probs = _slow_reading(
      run, workdirs["realm"], span, rows, corpus, tokenizer
    )
    places = np.arange(len(span.target))
    answer = np.exp(log_probs[:, places, span.target])  # [K, m]
    np.testing.assert_allclose(
      [c.retrieval_prob for c in prediction.candidates], probs, rtol=1e-4
    )
    np.testing.assert_allclose(
      [c.answer_prob for c in prediction.candidates],
      answer.prod(axis=1),
      rtol=1e-3,
    )
    utility = np.log(probs @ answer).sum() - np.log(answer[0]).sum()
    assert prediction.retrieval_utility == pytest.approx(utility, abs=1e-4)
    proposals = log_probs.argmax(-1)  # [K, m]
    marginals = [
      probs @ np.exp(log_probs[:, places, proposal].sum(-1))
      for proposal in proposals
    ]
    best = proposals[int(np.argmax(marginals))]
    assert prediction.prediction == tokenizer.decode(best)
    assert prediction.right == np.array_equal(best, span.target)
    assert prediction.closed_book_prediction == tokenizer.decode(proposals[0])
  assert figures["retrieval_utility"] == pytest.approx(
    np.mean([p.retrieval_utility for p in found])
  )
  assert figures["num_examples"] == len(spans) and figures["num_skipped"] == 0
  shares = [
    _leak_share(span, prediction, tokenizer)
    for span, prediction in zip(spans, found, strict=True)
  ]
  assert figures["own_words"] == pytest.approx(np.mean(shares))


def _leak_share(span, prediction, tokenizer):
  """Of the candidates that hold half of a text's runs of five pieces."""
  ids = span.masked.ids.copy()
  keep = span.masked.target_mask
  ids[span.masked.positions[keep]] = span.masked.targets[keep]
  wanted = {run for run in _runs(ids) if tokenizer.mask_id not in run}
  held = [
    len(wanted & _runs(tokenizer.encode(candidate.text).ids))
    for candidate in prediction.candidates[1:]
  ]
  return np.mean([count >= max(1, 0.5 * len(wanted)) for count in held])


def _runs(ids):
  return {tuple(ids[i : i + 5].tolist()) for i in range(len(ids) - 4)}


def test_the_texts_own_passage_is_never_a_candidate(workdirs, data_dir, spans):
  _, found = _evaluate(workdirs, "realm", data_dir)
  for span, prediction in zip(spans, found, strict=True):
    own = span.passage_uid.replace("capital", "borders")
    assert own not in [c.uid for c in prediction.candidates]
    assert [c.is_null for c in prediction.candidates] == [True] + [False] * 3


def test_recall_is_of_the_passages_but_the_texts_own(
  workdirs, data_dir, run, corpus, tokenizer, spans
):
  figures, found = _evaluate(workdirs, "ict", data_dir)

  retriever = Retriever(workdirs["ict"], run, Corpora(corpus), tokenizer)
  hits = []
  for span in spans:
    rows = retriever.search([span.masked.ids], len(corpus)).ids[0].tolist()
    rows.remove(span.source_row)
    hits.append(bool(set(span.named) & set(rows[:5])))
  assert figures["passage_recall_at_5"] == pytest.approx(np.mean(hits))
  assert figures["answer_recall_at_5"] >= figures["passage_recall_at_5"]
  assert "passage_recall_at_100" not in figures  # There are 20 passages.
  assert "open_book_exact_match" not in figures and found == []


def test_a_run_without_a_retriever_has_its_closed_book_alone(
  workdirs, data_dir, run, tokenizer, spans, corpus
):
  figures, found = _evaluate(workdirs, "mlm", data_dir, limit=3)

  assert figures["num_examples"] == len(found) == 3
  assert "passage_recall_at_1" not in figures
  assert "open_book_exact_match" not in figures
  encoder = checkpoints.restore_params(workdirs["mlm"], 7, "encoder")
  for span, prediction in zip(spans[:3], found, strict=True):
    queries = query_rows([span.masked.ids], tokenizer, run.lengths.query)
    joint = collate.joint_rows(
      queries,
      corpus,
      tokenizer,
      np.array([-1]),
      run.lengths.joint,
      with_title=False,
    )
    masks = np.flatnonzero(queries["ids"][0] == tokenizer.mask_id)
    logits = KnowledgeAugmentedEncoder(run.encoder).apply(
      {"params": encoder},
      **jax.tree.map(jnp.asarray, joint.rows),
      positions=jnp.asarray(masks)[None],
      deterministic=True,
    )
    wanted = tokenizer.decode(np.asarray(logits[0].argmax(-1)))
    assert prediction.closed_book_prediction == wanted
    assert prediction.prediction == wanted
    assert prediction.candidates == ()
    assert prediction.retrieval_utility is None
