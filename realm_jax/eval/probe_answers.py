# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned run makes of a question whose answer is marked.

"Who wrote Hamlet? [[Shakespeare]]": the answer's mentions take a share of all
spans of each passage, p(y|z,x), and of all that are read, p(y|x), as in the
reader's loss (ORQA section 4). There is no null document.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32
import numpy as np

from realm_jax import checkpoints, shapes
from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.gold_spans import gold_spans
from realm_jax.data.records import MaskedText
from realm_jax.data.tokenize import Tokenizer
from realm_jax.eval import scores
from realm_jax.eval.closed_book import ClosedBookAnswerer
from realm_jax.eval.fill import make_scorer
from realm_jax.eval.finders import open_finder
from realm_jax.eval.given_passages import check_room
from realm_jax.eval.predictions import Candidate, SpanPrediction
from realm_jax.eval.reader import PassageReader
from realm_jax.eval.retrieval import search_depth
from realm_jax.index.search import Neighbors
from realm_jax.models.reader import span_reader
from realm_jax.shapes import Params, TokenRows


def read_question(
  text: MaskedText, tokenizer: Tokenizer, longest: int
) -> tuple[str, str]:
  """Returns the question around a marked answer, and the answer.

  Raises:
    ValueError: there is no question, or the answer has none or more than
      `longest` word pieces, or some that are not in the vocabulary.
  """
  ((start, end),) = text.spans
  answer = text.text[start:end]
  question = f"{text.text[:start].rstrip()} {text.text[end:].lstrip()}".strip()
  if not question:
    raise ValueError(
      f"{text.text!r} is an answer alone: give its question, as in 'Who wrote "
      "Hamlet? [[Shakespeare]]'."
    )
  ids = tokenizer.encode(answer).ids
  if not 0 < len(ids) <= longest:
    raise ValueError(
      f"The answer {answer!r} has {len(ids)} word pieces, and this run's have "
      f"1 to {longest} (openqa.max_span): mark fewer words."
    )
  if tokenizer.unk_id in ids:
    raise ValueError(f"The answer {answer!r} is not in the run's vocabulary.")
  return question, answer


def probe_closed_book(
  answerer: ClosedBookAnswerer,
  texts: Iterable[MaskedText],
  run: RunConfig,
  tokenizer: Tokenizer,
) -> Iterator[SpanPrediction]:
  """Yields p(y|x) of each text's answer, with its end piece."""
  for text in texts:
    # The end piece takes one of the masks.
    asked = read_question(text, tokenizer, run.openqa.max_span - 1)
    answered = answerer.answer(asked[:1])[0].answers
    yield _prediction(
      text,
      answered[0].text if answered else "",
      answer_prob=answerer.probability(*asked),
    )


def _prediction(
  text: MaskedText,
  prediction: str | None,
  *,
  answer_prob: float | None = None,
  candidates: Sequence[Candidate] = (),
) -> SpanPrediction:
  ((start, end),) = text.spans
  answer = text.text[start:end]
  right = None
  if prediction is not None:
    right = scores.exact_match(prediction, [answer])
  return SpanPrediction(
    before=text.text[:start],
    answer=answer,
    after=text.text[end:],
    prediction=prediction,
    right=right,
    answer_prob=answer_prob,
    candidates=tuple(candidates),
  )


class _Spans(NamedTuple):
  """R passages' spans, by the reader alone."""

  log_gold: shapes.Array  # f32[R]: log of the sum of the answer's exp(score).
  log_totals: shapes.Array  # f32[R]: the same of all spans.
  best: shapes.Array  # i32[R]: place of the best span in a flattened [T, W].


class AnswerProber:
  """A run's span reader, and what finds passages for it."""

  def __init__(
    self,
    workdir: str,
    step: int,
    run: RunConfig,
    tokenizer: Tokenizer,
    *,
    num_read: int,
    given: PassageCorpus | None,
    corpus: str,
  ) -> None:
    """Opens a checkpoint.

    Args:
      workdir: of an openqa run that reads passages.
      step: of the checkpoint.
      run: its config.
      tokenizer: the corpus' own.
      num_read: R.
      given: R passages to read in place of those that are found.
      corpus: directory of a corpus to search; "" for the run's.
    """

    def restored(part: str) -> Params:
      return checkpoints.restore_params(workdir, step, part)

    self._run, self._tokenizer, self._given = run, tokenizer, given
    if given is None:
      self._finder = open_finder(
        workdir, run, tokenizer, corpus=corpus, step=step
      )
      self._corpus = self._finder.corpus
    else:
      self._corpus = given
    self._towers = None
    if given is not None and run.has_retriever:
      retrieval = dataclasses.replace(run.retrieval, null_document=False)
      self._towers = jax.device_put(restored("retriever"))
      self._score = make_scorer(dataclasses.replace(run, retrieval=retrieval))
    self._params = jax.device_put(restored("reader"))
    self._reader = PassageReader(
      run, self._params, tokenizer, self._corpus, num_read
    )
    self._spans = _make_spans(run)

  def probe(self, text: MaskedText) -> SpanPrediction:
    """Tells how likely the marked answer is in each passage, and in all.

    Raises:
      ValueError: see `read_question`.
    """
    question, answer = read_question(
      text, self._tokenizer, self._run.openqa.max_span
    )
    found = self._find(question)
    rows = found.ids[0, : self._reader.num_read]
    rows = rows[rows >= 0]
    spans, predictions = self._read(question, answer, rows)
    answer_probs = np.exp(spans.log_gold - spans.log_totals).tolist()
    candidates = [
      Candidate(
        uid=passage.uid,
        title=passage.title,
        text=passage.text,
        is_null=False,
        answer_prob=answer_prob,
        prediction=prediction,
      )
      for passage, answer_prob, prediction in zip(
        self._corpus.passages(rows), answer_probs, predictions, strict=True
      )
    ]
    if self._given is not None and self._towers is None:
      # BM25 weighs words by their corpus: of passages given, it tells nothing.
      return _prediction(text, None, candidates=candidates)
    logits = found.scores[0]
    probs = np.exp(logits - np.logaddexp.reduce(logits)).tolist()
    of_rows = logits[: len(rows)]
    log_gold = np.logaddexp.reduce(spans.log_gold + of_rows)
    log_total = np.logaddexp.reduce(spans.log_totals + of_rows)
    answered = self._reader.read([question], found, self._corpus)[0].answers
    return _prediction(
      text,
      answered[0].text if answered else "",
      answer_prob=float(np.exp(log_gold - log_total)),
      candidates=[
        dataclasses.replace(candidate, retrieval_prob=prob)
        for candidate, prob in zip(candidates, probs, strict=False)
      ],
    )

  def _find(self, question: str) -> Neighbors:
    """Returns passages and logits of p(z|x), which are 0 if not known."""
    if self._given is None:
      depth = max(self._reader.num_read, search_depth(self._corpus))
      return self._finder.find([question], depth)
    query = self._query(question)
    check_room(int(query["mask"].sum()) - 2, self._given, self._run)
    rows = np.arange(len(self._given), dtype=np.int32)
    if self._towers is None:
      return Neighbors(rows[None], np.zeros((1, len(rows)), np.float32))
    batch = {
      "query": query,
      "passages": collate.passage_rows(
        self._given,
        self._tokenizer,
        np.append(np.int32(collate.NULL_ROW), rows),
        self._run.lengths.passage,
      ),
      "candidate_mask": np.ones((1, 1 + len(rows)), bool),
    }
    log_probs = np.asarray(self._score(self._towers, batch))
    return Neighbors(rows[None], log_probs[:, 1:])

  def _query(self, question: str) -> TokenRows:
    ids = self._tokenizer.encode(question).ids
    return collate.query_rows([ids], self._tokenizer, self._run.lengths.query)

  def _read(
    self, question: str, answer: str, rows: Int32[np.ndarray, " R"]
  ) -> tuple[_Spans, list[str]]:
    """Returns sums over spans, and the best span of each passage."""
    joint = collate.joint_rows(
      collate.repeated(self._query(question), len(rows)),
      self._corpus,
      self._tokenizer,
      rows,
      self._run.lengths.joint,
      with_title=self._run.data.reader_sees_title,
    )
    width = self._run.openqa.max_span
    ids = self._tokenizer.encode(answer).ids
    gold = gold_spans(joint, [[ids]] * len(rows), [[]] * len(rows), width)
    spans = jax.device_get(
      self._spans(self._params, joint.rows, joint.block_mask, gold)
    )
    predictions = []
    for tokens, place in zip(joint.rows["ids"], spans.best, strict=True):
      start, more = divmod(int(place), width)
      predictions.append(
        self._tokenizer.decode(tokens[start : start + more + 1])
      )
    return spans, predictions


def _make_spans(run: RunConfig) -> Any:
  """Returns jitted `(params, joint rows, block mask, gold) -> _Spans`."""
  reader: Any = span_reader(run)

  @jax.jit
  def spans(
    params: Params,
    rows: TokenRows,
    block_mask: Bool[Array, "R T"],
    gold: Bool[Array, "R T W"],
  ) -> _Spans:
    found: Float[Array, "R T W"] = reader.apply(
      {"params": params}, **rows, block_mask=block_mask, deterministic=True
    )
    # -inf where no span is the answer.
    log_gold = jax.nn.logsumexp(found, axis=(1, 2), where=gold)
    log_totals = jax.nn.logsumexp(found, axis=(1, 2))
    best = jnp.argmax(found.reshape(len(found), -1), axis=1)
    return _Spans(log_gold, log_totals, best)

  return spans
