# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/pretrain.py."""

import dataclasses
import json

import numpy as np
import pytest

from realm_jax.config import DataConfig, LengthConfig, RunConfig
from realm_jax.data import pretrain
from realm_jax.data.records import MaskedText

_RUN = RunConfig(lengths=LengthConfig(query=24, passage=48, joint=72, masks=4))
_TEXT = "The capital of Bakodia is Bakoton."


def _write(tmp_path, *rows):
  path = tmp_path / "texts.jsonl"
  path.write_text("\n".join(json.dumps(row) for row in rows))
  return str(path)


def _examples(tiny_corpus, tiny_tokenizer, path, run=_RUN, train=False):
  return pretrain.masked_queries(
    run, tiny_tokenizer, tiny_corpus, path, train=train
  )


def _unmasked(example):
  ids = example["query"]["ids"].copy()
  keep = example["target_mask"]
  ids[example["positions"][keep]] = example["targets"][keep]
  return ids[example["query"]["mask"]][1:-1]


def test_texts_are_read_as_written(tmp_path):
  path = _write(
    tmp_path,
    {
      "text": _TEXT,
      "spans": [[4, 11]],
      "source_uid": "a",
      "passage_uid": "b",
    },
    {"text": _TEXT},
  )
  texts = pretrain.MaskedTexts(path)
  assert texts[0] == MaskedText(
    text=_TEXT, spans=((4, 11),), source_uid="a", passage_uid="b"
  )
  tagged = [_TEXT[start:end] for start, end in texts[1].spans]
  assert tagged == ["Bakodia", "Bakoton"]
  assert len(texts) == 2 and texts.where(1) == f"{path}:2"


def test_another_tagger_may_find_the_spans(tmp_path):
  class Everything:
    def tag(self, text):
      return [(0, len(text))]

  texts = pretrain.MaskedTexts(_write(tmp_path, {"text": "abc"}), Everything())
  assert texts[0].spans == ((0, 3),)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"text": ""}, "'text' must be a non-empty string"),
    ({"text": "abc", "spans": [[0, 4]]}, r"span \[0, 4\] is not inside"),
    ({"text": "abc", "spans": [[2, 2]]}, r"span \[2, 2\] is not inside"),
    ({"text": "abc", "spans": [1]}, "'spans' must be a list"),
    ({"text": "abc", "spans": 5}, "'spans' must be a list"),
    ({"text": "abc", "source_uid": 5}, "'source_uid' must be a string"),
  ],
)
def test_a_bad_line_fails_before_work_starts(
  tmp_path, tiny_corpus, tiny_tokenizer, row, message
):
  path = _write(tmp_path, {"text": _TEXT}, row)
  with pytest.raises(ValueError, match=rf"texts\.jsonl:2: .*{message}"):
    _examples(tiny_corpus, tiny_tokenizer, path)


def test_the_given_span_is_masked_and_predicted(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  t = tiny_tokenizer
  start = _TEXT.index("Bakodia")
  span = [start, start + len("Bakodia")]
  row = {
    "text": _TEXT,
    "spans": [span],
    "source_uid": "country-5",
    "passage_uid": "country-7",
  }
  example = _examples(tiny_corpus, t, _write(tmp_path, row))[0]
  whole, inside = t.encode(_TEXT), t.encode("Bakodia").ids
  keep = example["target_mask"]
  np.testing.assert_array_equal(example["targets"][keep], inside)
  masked = example["query"]["ids"][example["positions"][keep]]
  assert set(masked.tolist()) == {t.mask_id}
  assert (example["query"]["ids"] == t.mask_id).sum() == len(inside)
  np.testing.assert_array_equal(_unmasked(example), whole.ids)
  assert example["source_row"] == tiny_corpus.row_of("country-5")
  assert example["gold_row"] == tiny_corpus.row_of("country-7")


def test_examples_have_one_shape_and_type(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  path = _write(tmp_path, {"text": _TEXT}, {"text": "It fell. " * 30})
  for example in (
    *_examples(tiny_corpus, tiny_tokenizer, path),
    _examples(tiny_corpus, tiny_tokenizer, "")[0],
  ):
    assert example["query"]["ids"].shape == (24,)
    for name, dtype in (
      ("positions", np.int32),
      ("targets", np.int32),
      ("target_mask", bool),
    ):
      assert example[name].shape == (4,) and example[name].dtype == dtype
    assert example["source_row"].dtype == example["gold_row"].dtype == np.int32


def test_a_span_beyond_the_query_is_never_chosen(
  tmp_path, tiny_corpus, tiny_tokenizer
):
  text = "It fell. " * 30 + "Bakodia"
  spans = [[0, 2], [len(text) - 7, len(text)]]
  path = _write(tmp_path, {"text": text, "spans": spans})
  for seed in range(8):
    run = dataclasses.replace(_RUN, seed=seed)
    example = _examples(tiny_corpus, tiny_tokenizer, path, run)[0]
    assert example["positions"].tolist() == [1, 0, 0, 0]
    assert example["query"]["mask"].all()


def test_without_a_file_sentences_of_the_corpus_are_masked(
  tiny_corpus, tiny_tokenizer
):
  examples = _examples(tiny_corpus, tiny_tokenizer, "")
  assert len(examples) == len(tiny_corpus)
  for row, example in enumerate(examples):
    assert example["source_row"] == row and example["gold_row"] == -1
    body, sentence = tiny_corpus.body_ids(row), _unmasked(example)
    bounds = [*tiny_corpus.sentence_starts(row), len(body)]
    sentences = [
      body[bounds[i] : bounds[i + 1]].tolist() for i in range(len(bounds) - 1)
    ]
    assert sentence.tolist() in sentences


def test_training_masks_a_text_anew_in_each_epoch(tiny_corpus, tiny_tokenizer):
  examples = _examples(tiny_corpus, tiny_tokenizer, "", train=True)
  count = len(tiny_corpus)
  first, second = (
    {
      int(example["source_row"]): example["query"]["ids"].tolist()
      for example in (examples[i] for i in range(start, start + count))
    }
    for start in (0, count)
  )
  assert set(first) == set(second) == set(range(count))
  assert sum(first[row] != second[row] for row in first) > count // 4


@pytest.mark.parametrize("train", [False, True])
def test_the_index_alone_decides_the_example(
  tiny_corpus, tiny_tokenizer, train
):
  once = _examples(tiny_corpus, tiny_tokenizer, "", train=train)
  again = _examples(tiny_corpus, tiny_tokenizer, "", train=train)
  again[3]
  for name in ("positions", "targets"):
    np.testing.assert_array_equal(once[9][name], again[9][name])


@pytest.mark.parametrize("scheme", ["span", "token"])
def test_other_schemes_mask_no_salient_spans(
  tiny_corpus, tiny_tokenizer, scheme
):
  run = dataclasses.replace(_RUN, data=DataConfig(masking=scheme))
  examples = _examples(tiny_corpus, tiny_tokenizer, "", run)
  first_words = [bool(1 in e["positions"].tolist()) for e in examples]
  assert any(first_words)  # "The", "It", "In": never salient.


def test_unknown_uids(tmp_path, tiny_corpus, tiny_tokenizer):
  path = _write(
    tmp_path,
    {"text": _TEXT, "source_uid": "elsewhere"},
    {"text": _TEXT, "passage_uid": "elsewhere"},
  )
  examples = _examples(tiny_corpus, tiny_tokenizer, path)
  assert examples[0]["source_row"] == -1
  with pytest.raises(ValueError, match=r":2: 'passage_uid' 'elsewhere' is not"):
    examples[1]


def test_a_text_without_pieces_is_named(tmp_path, tiny_corpus, tiny_tokenizer):
  path = _write(tmp_path, {"text": "\u200b"})
  examples = _examples(tiny_corpus, tiny_tokenizer, path)
  with pytest.raises(ValueError, match=r":1: 'text' has no word piece"):
    examples[0]
