# SPDX-License-Identifier: Apache-2.0
"""Held-out masked spans, filled in with and without looking things up.

Open book is the marginal over the candidates of the index, which is searched
as in pre-training, with the query tower that it was built with; p(z|x) and
p(y|z,x) are the checkpoint's own. Closed book is the null document alone. A
run without a retriever (mlm) has only that, and one without an encoder (ict)
only its recall.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int32
import numpy as np
from rich.progress import track

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data import collate
from realm_jax.data.candidates import Candidates, RealmCollator
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.masking import Masked, mask_pieces, pieces_of
from realm_jax.data.own_words import LEAK, held_shares
from realm_jax.data.pretrain import MaskedTexts, sentence_of
from realm_jax.data.records import Question
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.eval import retrieval
from realm_jax.eval.batching import fixed_batches
from realm_jax.eval.figures import summarise
from realm_jax.eval.fill import Filled, make_filler, make_scorer
from realm_jax.eval.predictions import Candidate, SpanPrediction
from realm_jax.eval.retrieval import RECALL_AT
from realm_jax.eval.retriever import Retriever
from realm_jax.index.corpora import open_corpora
from realm_jax.shapes import Batch, TokenRows

_BATCH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedSpan:
  """A text with its first span masked."""

  before: str
  answer: str
  after: str
  masked: Masked  # Positions are places among the text's pieces.
  target: Int32[np.ndarray, "_"]  # All pieces of the span, also beyond M.
  source_row: int  # The passage to leave out, NULL_ROW for none.
  passage_uid: str  # The passage to find, "" if unknown.
  gold_row: int | None  # The same in the corpus.


def read_spans(
  texts: MaskedTexts,
  run: RunConfig,
  tokenizer: Tokenizer,
  corpus: PassageCorpus,
  limit: int = 0,
) -> list[MaskedSpan]:
  """Masks the first span of each of the first `limit` texts (0: of all).

  Texts without a span inside the query's length are left out.

  Raises:
    ValueError: a malformed line, or a passage_uid that is not in the corpus.
  """
  found = []
  for index in range(min(limit or len(texts), len(texts))):
    text = texts[index]
    sentence = sentence_of(text, text.spans[0]) if text.spans else None
    if sentence is None:
      continue
    text = sentence
    encoding = tokenizer.encode(text.text)[: run.lengths.query - 2]
    if not len(pieces_of(encoding, text.spans[0])):
      continue
    chosen, (start, end) = pieces_of(encoding, text.spans[0]), text.spans[0]
    gold_row = corpus.row_of(text.passage_uid) if text.passage_uid else None
    if text.passage_uid and gold_row is None:
      raise ValueError(
        f"{texts.where(index)}: 'passage_uid' {text.passage_uid!r} is not in "
        f"the corpus {corpus.directory}."
      )
    source_row = None
    if text.source_uid and run.retrieval.exclude_own:
      source_row = corpus.row_of(text.source_uid)
    found.append(
      MaskedSpan(
        before=text.text[:start],
        answer=text.text[start:end],
        after=text.text[end:],
        masked=mask_pieces(
          encoding.ids, chosen, tokenizer.mask_id, run.lengths.masks
        ),
        target=encoding.ids[chosen],
        source_row=collate.NULL_ROW if source_row is None else source_row,
        passage_uid=text.passage_uid,
        gold_row=gold_row,
      )
    )
  return found


def evaluate_spans(
  workdir: str, data: str, *, corpus: str, step: int, limit: int
) -> tuple[dict[str, Any], list[SpanPrediction]]:
  """Returns figures and, but for ict, what was filled in.

  The arguments are those of `evaluate`.
  """
  run = workdirs.load(workdir)
  step = step or checkpoints.newest_step(workdir)
  tokenizer = load_tokenizer(run.data.tokenizer)
  corpora = open_corpora(workdir, run, corpus)
  retriever = None
  if run.stage != "mlm":
    retriever = Retriever(workdir, run, corpora, tokenizer)
  passages = (
    retriever.version.corpus if retriever else corpora.open(corpora.moves()[0])
  )
  texts = MaskedTexts(data)
  spans = read_spans(texts, run, tokenizer, passages, limit)
  if not spans:
    raise ValueError(
      f"{data} has no span within the query's {run.lengths.query} tokens. "
      "Give 'spans', or raise lengths.query."
    )
  facts: dict[str, Any] = {
    "step": step,
    "corpus": str(passages.directory),
    "num_examples": len(spans),
    "num_skipped": min(limit or len(texts), len(texts)) - len(spans),
  }
  neighbors, recall = None, {}
  if retriever:
    neighbors = _find_passages(retriever, spans, run, passages, tokenizer)
    facts["index_version"] = retriever.version.version
    recall = _recall(spans, neighbors, passages)
    rows = neighbors[:, : run.retrieval.num_candidates - 1]
    held = _held_shares(spans, run, passages, tokenizer, rows) >= LEAK
    recall["own_words"] = held.sum(axis=1) / np.maximum(
      (rows >= 0).sum(axis=1), 1
    )
  if retriever and run.stage != "realm":
    # Nothing of the checkpoint itself was used.
    return {**facts, "step": retriever.version.step, **summarise(recall)}, []
  filler = _Filler(workdir, step, run, passages, tokenizer, spans)
  found = filler.fill_all(spans, neighbors)
  return {**facts, **summarise({**_columns(found), **recall})}, found


def _examples(
  spans: Sequence[MaskedSpan], run: RunConfig, tokenizer: Tokenizer
) -> Batch:
  masked = [span.masked for span in spans]
  target_mask = np.stack([m.target_mask for m in masked])
  positions = np.stack([m.positions for m in masked])
  return {
    "query": collate.query_rows(
      [m.ids for m in masked], tokenizer, run.lengths.query
    ),
    # One further on: [CLS] comes first.
    "positions": positions + target_mask.astype(np.int32),
    "targets": np.stack([m.targets for m in masked]),
    "target_mask": target_mask,
  }


def _held_shares(
  spans: Sequence[MaskedSpan],
  run: RunConfig,
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  rows: Int32[np.ndarray, "n k"],
) -> Float32[np.ndarray, "n k"]:
  """Does `own_words.held_shares` in bounded memory."""
  parts = [
    held_shares(
      _examples(spans[i : i + _BATCH], run, tokenizer),
      tokenizer,
      corpus,
      rows[i : i + _BATCH],
    )
    for i in range(0, len(spans), _BATCH)
  ]
  return np.concatenate(parts)


def _recall(
  spans: Sequence[MaskedSpan],
  neighbors: Int32[np.ndarray, "n k"],
  corpus: PassageCorpus,
) -> dict[str, Float[np.ndarray, " n"]]:
  wanted = [Question(text="", answers=(span.answer,)) for span in spans]
  has_gold = np.array([span.gold_row is not None for span in spans])
  gold_rows = [
    np.array([] if span.gold_row is None else [span.gold_row], np.int32)
    for span in spans
  ]
  return retrieval.recall_columns(
    retrieval.answer_hits(neighbors, corpus, wanted),
    retrieval.passage_hits(neighbors, gold_rows),
    has_gold,
  )


def _find_passages(
  retriever: Retriever,
  spans: Sequence[MaskedSpan],
  run: RunConfig,
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
) -> Int32[np.ndarray, "n depth"]:
  """Returns rows, best first, own ones left out; NULL_ROW for none."""
  limit = run.retrieval.exclude_overlap
  depth = min(max(RECALL_AT), len(corpus))
  # More than is needed: the own passage may be among them, or its words.
  num_found = 2 * depth if limit else depth + 1
  ids = retriever.search([span.masked.ids for span in spans], num_found).ids
  own = np.array([span.source_row for span in spans])
  dropped = ids == own[:, None]
  if limit:
    dropped |= _held_shares(spans, run, corpus, tokenizer, ids) >= limit
  order = np.argsort(dropped, axis=1, kind="stable")[:, :depth]
  kept = np.where(dropped, collate.NULL_ROW, ids)
  return np.take_along_axis(kept, order, axis=1)


def _columns(
  found: Sequence[SpanPrediction],
) -> dict[str, Float[np.ndarray, " n"]]:
  figures = {"closed_book_exact_match": "closed_book_right"}
  if found[0].candidates:
    figures |= {
      "open_book_exact_match": "right",
      "retrieval_utility": "retrieval_utility",
    }
  return {
    name: np.array([getattr(one, field) for one in found], np.float64)
    for name, field in figures.items()
  }


class _Filler:
  """A checkpoint's encoder, and its retriever if it has one."""

  def __init__(
    self,
    workdir: str,
    step: int,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    spans: Sequence[MaskedSpan],
  ) -> None:
    corpus.check_tokenizer(tokenizer)
    self._run = dataclasses.replace(run, batch_size=_BATCH)
    self._corpus, self._tokenizer = corpus, tokenizer

    def restored(part: str) -> Any:
      return jax.device_put(checkpoints.restore_params(workdir, step, part))

    self._encoder, self._fill = restored("encoder"), make_filler(run)
    self._longest = max(len(span.masked.ids) for span in spans) + 2
    if run.stage == "realm":
      self._retriever, self._score = restored("retriever"), make_scorer(run)
      lengths = np.array([len(span.masked.ids) + 2 for span in spans])
      self._collate = RealmCollator(
        self._run, corpus, tokenizer, lengths, num_devices=1
      )

  def fill_all(
    self, spans: Sequence[MaskedSpan], neighbors: np.ndarray | None
  ) -> list[SpanPrediction]:
    """Fills spans in beside the first K - 1 of their neighbours i32[n, _]."""
    found: list[SpanPrediction] = []
    batches = list(fixed_batches(range(len(spans)), _BATCH))
    for members, count in track(batches, "Filling in masked spans"):
      batch_spans = [spans[i] for i in members]
      rows = None if neighbors is None else neighbors[members]
      filled = self._fill_batch(batch_spans, rows)
      for i in range(count):
        mine = Filled(*(field[i] for field in filled))
        found.append(
          self._prediction(
            batch_spans[i], mine, None if rows is None else rows[i]
          )
        )
    return found

  def _fill_batch(
    self, spans: Sequence[MaskedSpan], neighbors: np.ndarray | None
  ) -> Filled:
    batch = _examples(spans, self._run, self._tokenizer)
    if neighbors is None:
      batch["joints"] = self._null_joints(batch)
      retrieval_log_probs = jnp.zeros((len(spans), 1))
    else:
      num_others = self._run.retrieval.num_candidates - 1
      rows = neighbors[:, :num_others]
      missing = ((0, 0), (0, num_others - rows.shape[1]))
      mask = np.pad(rows >= 0, missing)
      batch = self._collate(
        batch, Candidates(np.pad(np.maximum(rows, 0), missing), mask)
      )
      retrieval_log_probs = self._score(self._retriever, batch)
    return jax.device_get(self._fill(self._encoder, retrieval_log_probs, batch))

  def _null_joints(self, examples: Batch) -> TokenRows:
    queries = examples["query"]
    num_queries = len(queries["ids"])
    return collate.joint_rows(
      queries,
      self._corpus,
      self._tokenizer,
      np.full(num_queries, collate.NULL_ROW),
      self._longest + 1,  # The null document is one [SEP].
      with_title=False,
    ).rows

  def _prediction(
    self, span: MaskedSpan, filled: Filled, neighbors: np.ndarray | None
  ) -> SpanPrediction:
    """Reads one span's row of a batch's `Filled`."""
    predicted = filled.spans[filled.best]
    utility = None
    if neighbors is not None:
      utility = float(filled.marginal - filled.answer_log_probs[0])
    return SpanPrediction(
      before=span.before,
      answer=span.answer,
      after=span.after,
      prediction=self._decode(span, predicted),
      right=_is_right(span, predicted),
      closed_book_prediction=self._decode(span, filled.spans[0]),
      closed_book_right=_is_right(span, filled.spans[0]),
      retrieval_utility=utility,
      passage_uid=span.passage_uid,
      candidates=(
        () if neighbors is None else self._candidates(span, filled, neighbors)
      ),
    )

  def _candidates(
    self, span: MaskedSpan, filled: Filled, neighbors: np.ndarray
  ) -> tuple[Candidate, ...]:
    num_others = self._run.retrieval.num_candidates - 1
    rows = [row for row in neighbors[:num_others].tolist() if row >= 0]
    shown = [("", "", "")]  # The null document.
    shown += [(p.uid, p.title, p.text) for p in self._corpus.passages(rows)]
    return tuple(
      Candidate(
        uid=uid,
        title=title,
        text=text,
        is_null=slot == 0,
        retrieval_prob=float(np.exp(filled.retrieval_log_probs[slot])),
        answer_prob=float(np.exp(filled.answer_log_probs[slot])),
        prediction=self._decode(span, filled.spans[slot]),
      )
      for slot, (uid, title, text) in enumerate(shown)
    )

  def _decode(self, span: MaskedSpan, pieces: np.ndarray) -> str:
    return self._tokenizer.decode(pieces[: len(span.target)])


def _is_right(span: MaskedSpan, pieces: np.ndarray) -> bool:
  # A span longer than M is not predicted to its end, so it is never right.
  return np.array_equal(pieces[: len(span.target)], span.target)
