# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/tokenize.py."""

import json
import subprocess
import sys

import numpy as np
import pytest

from realm_jax.data import tokenize

_TEXTS = [
  "The Éclair of Zürich costs 12 francs.",
  "Nothing costs less than an éclair in Zurich, nothing!",
  "words wordy wordier wordiest worded",
] * 5


def test_offsets_point_at_the_characters_of_each_piece(tiny_tokenizer):
  text = "  The capital, of Bakodia."
  found = tiny_tokenizer.encode(text)
  covered = "".join(
    text[start:end] for start, end in zip(found.starts, found.ends, strict=True)
  )
  assert covered == text.replace(" ", "")
  assert found.ids.dtype == np.int32


def test_accents_and_case_do_not_shift_offsets(tmp_path):
  tokenizer = tokenize.train_tokenizer(_TEXTS, 200, tmp_path)
  text = "ÉCLAIR Zürich"
  found = tokenizer.encode(text)
  word = found.starts >= 7
  assert text[found.starts[word][0] : found.ends[word][-1]] == "Zürich"


def test_a_piece_ends_after_the_accents_of_its_last_letter(tmp_path):
  tokenizer = tokenize.train_tokenizer(_TEXTS, 200, tmp_path)
  text = "e\u0301clair\u0323\u0301 zu\u0308 \u0301rich, \u0301"
  found = tokenizer.encode(text)
  covered = "".join(
    text[start:end] for start, end in zip(found.starts, found.ends, strict=True)
  )
  # One that follows a space belongs to no letter.
  assert covered == "e\u0301clair\u0323\u0301zu\u0308rich,"
  assert (found.ends[:-1] <= found.starts[1:]).all()
  # The text's last piece has none after it to keep clear of.
  last = tokenizer.encode("cafe\u0301")
  assert last.ends[-1] == 5


def test_batches_equal_single_texts(tiny_tokenizer):
  texts = ["", "The capital of Bakodia.", "1999"]
  for text, found in zip(
    texts, tiny_tokenizer.encode_batch(texts), strict=True
  ):
    np.testing.assert_array_equal(found.ids, tiny_tokenizer.encode(text).ids)


def test_slices_keep_ids_and_offsets_together(tiny_tokenizer):
  found = tiny_tokenizer.encode("The capital of Bakodia is far.")
  part = found[1:3]
  assert len(part) == 2
  np.testing.assert_array_equal(part.starts, found.starts[1:3])


def test_training_does_not_depend_on_the_process(tmp_path):
  """The library alone numbers pieces by a hash that differs per process."""
  script = (
    "import json, sys\n"
    "from realm_jax.data import tokenize\n"
    "texts = json.loads(sys.argv[1])\n"
    "print(tokenize.train_tokenizer(texts, 150, sys.argv[2]).fingerprint)\n"
  )
  prints = {
    subprocess.run(
      [sys.executable, "-c", script, json.dumps(_TEXTS), str(tmp_path / name)],
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()
    for name in ("a", "b")
  }
  here = tokenize.train_tokenizer(_TEXTS, 150, tmp_path / "c")
  assert prints == {here.fingerprint}


def test_a_saved_tokenizer_loads_as_the_same(tmp_path, tiny_tokenizer):
  tiny_tokenizer.save(tmp_path)
  loaded = tokenize.load_tokenizer(tmp_path)
  assert loaded.fingerprint == tiny_tokenizer.fingerprint
  assert loaded.vocab_size == tiny_tokenizer.vocab_size


def test_padding_set_in_a_file_changes_nothing(tmp_path, tiny_tokenizer):
  tiny_tokenizer.save(tmp_path)
  path = tmp_path / "tokenizer.json"
  content = json.loads(path.read_text())
  content["truncation"] = {
    "direction": "Right",
    "max_length": 2,
    "strategy": "LongestFirst",
    "stride": 0,
  }
  path.write_text(json.dumps(content))
  loaded = tokenize.load_tokenizer(tmp_path)
  assert loaded.fingerprint == tiny_tokenizer.fingerprint
  assert len(loaded.encode("The capital of Bakodia is far.")) > 2


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_is_read_with_its_case(tmp_path, lowercase):
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "##s"]
  (tmp_path / "vocab.txt").write_text("\n".join(pieces))
  (tmp_path / "tokenizer_config.json").write_text(
    json.dumps({"do_lower_case": lowercase})
  )
  tokenizer = tokenize.load_tokenizer(tmp_path)
  assert tokenizer.tokens(tokenizer.encode("Thes").ids) == [
    "the" if lowercase else "The",
    "##s",
  ]
  assert tokenizer.mask_id == 4


@pytest.mark.parametrize(
  "text",
  [
    "1,000 men, 20 km",
    "3.5% of 10:30",
    "1990-1995",
    "1990\u20131995 and/or",
    "u.s. or d.c",
    "o'neil's",
    "paris's",
    "mr. smith. 2",
    "in may, 1,200,300",
    "$5 (five)",
  ],
)
def test_decode_joins_what_english_joins(text):
  pieces = sorted({*text, *("##" + c for c in text)} - {" ", "## "})
  specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  vocabulary = {p: i for i, p in enumerate([*specials, *pieces])}
  tokenizer = tokenize.Tokenizer(
    tokenize._wordpiece(vocabulary, lowercase=True)
  )
  assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_decode_leaves_special_tokens_out(tiny_tokenizer):
  ids = tiny_tokenizer.encode("the capital of bakodia").ids
  row = [tiny_tokenizer.cls_id, *ids.tolist(), tiny_tokenizer.sep_id]
  assert tiny_tokenizer.decode(row) == "the capital of bakodia"


def test_missing_special_tokens_are_named(tmp_path):
  (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe")
  with pytest.raises(ValueError, match=r"no \['\[MASK\]'\]"):
    tokenize.load_tokenizer(tmp_path)


def test_a_broken_file_is_named(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(ValueError, match=r"tokenizer\.json: not a BERT-style"):
    tokenize.load_tokenizer(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
  with pytest.raises(ValueError, match="holds no tokenizer"):
    tokenize.load_tokenizer(tmp_path)


def test_a_vocabulary_smaller_than_its_alphabet_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"vocab_size \(20\) is below"):
    tokenize.train_tokenizer(_TEXTS, 20, tmp_path)


def test_no_text_makes_no_vocabulary(tmp_path):
  with pytest.raises(ValueError, match="No text"):
    tokenize.train_tokenizer([" "], 200, tmp_path)


def test_a_store_keeps_a_tokenizer(url, tiny_tokenizer):
  tiny_tokenizer.save(f"{url}/tokenizer")
  loaded = tokenize.load_tokenizer(f"{url}/tokenizer")
  assert loaded.fingerprint == tiny_tokenizer.fingerprint


def test_a_tokenizer_that_is_not_there_is_not_looked_for_on_the_hub(url):
  with pytest.raises(ValueError, match=f"{url} holds no tokenizer"):
    tokenize.load_tokenizer(url)
