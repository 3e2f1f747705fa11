# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from realm_jax import workdir
from realm_jax.data.records import MaskedText
from realm_jax.eval import span_filler
from realm_jax.eval.span_filler import SpanFiller, mask_first_span

_TEXTS = (
  MaskedText(text="The capital of Peru is Lima.", spans=((23, 27),)),
  MaskedText(text="Rome lies in Italy.", spans=((0, 4), (13, 18))),
)


@pytest.fixture(scope="module")
def spans(run, tokenizer):
  return [mask_first_span(text, run, tokenizer) for text in _TEXTS]


def _filler(workdirs, stage, corpus, tokenizer, *, batch_size, **changed):
  run = workdir.load(workdirs[stage])
  run = dataclasses.replace(run, **changed)
  lengths = np.arange(3, run.lengths.query + 1)
  return SpanFiller(
    workdirs[stage],
    run.num_steps,
    run,
    corpus,
    tokenizer,
    lengths,
    batch_size=batch_size,
  )


def test_the_sentence_of_the_first_span_is_what_is_masked(run, tokenizer):
  text = MaskedText(
    text="It is so. We saw Rome.",
    spans=((17, 21),),
    sentences=((0, 9), (10, 22)),
  )
  span = mask_first_span(text, run, tokenizer)
  assert (span.before, span.answer, span.after) == ("We saw ", "Rome", ".")
  nowhere = dataclasses.replace(text, sentences=((0, 9),))
  assert mask_first_span(nowhere, run, tokenizer) is None


def test_a_span_is_filled_in_alike_in_any_batch(
  workdirs, corpus, tokenizer, run, spans
):
  """Also where the run's own batches were computed in parts."""
  neighbors = np.array([[3, 5, 7], [2, 9, -1]], np.int32)
  together = _filler(workdirs, "realm", corpus, tokenizer, batch_size=2)
  parts = dataclasses.replace(run.optimizer, accumulate_steps=2)
  alone = _filler(
    workdirs, "realm", corpus, tokenizer, batch_size=1, optimizer=parts
  )
  for i, wanted in enumerate(together.fill(spans, neighbors)):
    (found,) = alone.fill(spans[i : i + 1], neighbors[i : i + 1])
    assert len(found.candidates) == len(wanted.candidates) == 4 - i
    assert found.prediction == wanted.prediction
    for name in ("retrieval_prob", "answer_prob", "retrieval_utility"):
      np.testing.assert_allclose(
        [getattr(c, name) for c in found.candidates],
        [getattr(c, name) for c in wanted.candidates],
        rtol=1e-3,
        atol=1e-5,
      )


def test_a_span_longer_than_what_is_predicted_is_never_right(spans):
  span = dataclasses.replace(spans[0], target=np.arange(8, dtype=np.int32))
  assert span_filler._is_right(span, np.arange(8))
  assert not span_filler._is_right(span, np.arange(6))
