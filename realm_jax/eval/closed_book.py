# SPDX-License-Identifier: Apache-2.0
"""Questions answered from an encoder's parameters alone, with no evidence."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import math
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from realm_jax import checkpoints, shapes
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.closed_book import closed_book_row, fill_in
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.eval.batching import fixed_batches
from realm_jax.eval.predictions import Answer, AnsweredQuestion
from realm_jax.models.reader import KnowledgeAugmentedEncoder
from realm_jax.objectives import mlm
from realm_jax.shapes import Batch, Params

_BATCH = 32


class ClosedBookAnswerer:
  """A run fine-tuned closed book: what its encoder fills in is the answer."""

  def __init__(
    self, run: RunConfig, encoder_params: Params, tokenizer: Tokenizer
  ) -> None:
    """Takes what `open` opens."""
    self._run, self._tokenizer = run, tokenizer
    self._params = jax.device_put(encoder_params)
    self._fill, self._log_prob = _make_filler(run), _make_scorer(run)

  @classmethod
  def open(
    cls,
    workdir: epath.PathLike,
    *,
    corpus: str = "",
    step: int = 0,
    read: int = 0,
    retriever: str = "",
  ) -> "ClosedBookAnswerer":
    """Opens a checkpoint.

    Args:
      workdir: of a closed-book run.
      corpus: refused, as are `read` and `retriever`, unless empty: of what
        runs that read passages have.
      step: of the checkpoint; 0 for the newest.
      read: see `corpus`.
      retriever: see `corpus`.

    Raises:
      FileNotFoundError: no config or checkpoint.
      ValueError: something is asked for that needs passages.
    """
    asked = {"corpus": corpus, "read": read, "retriever": retriever}
    flags = [f"--{name}={value}" for name, value in asked.items() if value]
    if flags:
      raise ValueError(
        f"{workdir} answers closed book (openqa.retriever='none'): it reads no "
        f"passages, so leave out {', '.join(flags)}."
      )
    run = workdirs.load(workdir)
    step = step or checkpoints.newest_step(workdir)
    return cls(
      run,
      checkpoints.restore_params(workdir, step, "encoder"),
      load_tokenizer(run.data.tokenizer),
    )

  def answer(self, questions: Sequence[str]) -> list[AnsweredQuestion]:
    """Returns one answer to each question, or none if it is empty."""
    answered: list[AnsweredQuestion] = []
    for batch, count in fixed_batches(questions, _BATCH):
      filled = jax.device_get(self._fill(self._params, self._rows(batch)))
      answered += [
        AnsweredQuestion(
          question=batch[i],
          answers=self._answers(filled.pieces[i], filled.log_probs[i]),
        )
        for i in range(count)
      ]
    return answered

  def converse(self, questions: Iterable[str]) -> Iterator[AnsweredQuestion]:
    """Answers one question after another."""
    for question in questions:
      yield from self.answer([question])

  def probability(self, question: str, answer: str) -> float:
    """Returns p of an answer's pieces and the end piece after them.

    Args:
      question: any.
      answer: of fewer pieces than `openqa.max_span`.
    """
    wanted = fill_in(
      self._tokenizer.encode(answer).ids,
      self._tokenizer.sep_id,
      self._run.openqa.max_span,
    )
    wanted = {name: leaf[None] for name, leaf in wanted.items()}
    batch = self._rows([question]) | wanted
    return math.exp(float(self._log_prob(self._params, batch)[0]))

  def _rows(self, questions: Sequence[str]) -> Batch:
    rows = [
      closed_book_row(each.ids, self._tokenizer, self._run)
      for each in self._tokenizer.encode_batch(questions)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

  def _answers(
    self, pieces: Int[np.ndarray, " W"], log_probs: Float[np.ndarray, " W"]
  ) -> tuple[Answer, ...]:
    """Reads one question's masks, up to the end piece."""
    ends = np.flatnonzero(pieces == self._tokenizer.sep_id)
    end = int(ends[0]) if len(ends) else len(pieces)
    text = self._tokenizer.decode(pieces[:end])
    score = float(log_probs[: end + 1].sum())
    answer = Answer(
      text=text, score=score, probability=math.exp(score), evidence=()
    )
    return (answer,) if text else ()


class _Filled(NamedTuple):
  """The likeliest piece at each mask by itself."""

  pieces: shapes.Array  # i32[B, W]
  log_probs: shapes.Array  # f32[B, W]


def _make_filler(run: RunConfig) -> Callable[[Params, Batch], _Filled]:
  @jax.jit
  def fill(params: Params, batch: Batch) -> _Filled:
    log_probs = jax.nn.log_softmax(_logits(run, params, batch), axis=-1)
    return _Filled(jnp.argmax(log_probs, axis=-1), jnp.max(log_probs, axis=-1))

  return fill


def _make_scorer(
  run: RunConfig,
) -> Callable[[Params, Batch], Float[Array, "B"]]:
  @jax.jit
  def score(params: Params, batch: Batch) -> jax.Array:
    logits = _logits(run, params, batch)
    log_probs = mlm.token_log_probs(logits, batch["targets"])
    return mlm.span_log_likelihood(log_probs, batch["target_mask"])

  return score


def _logits(run: RunConfig, params: Params, batch: Batch) -> jax.Array:
  """Returns f32[B, W, V]."""
  encoder: Any = KnowledgeAugmentedEncoder(run.encoder)
  return encoder.apply(
    {"params": params},
    **batch["joint"],
    positions=batch["positions"],
    deterministic=True,
  )
