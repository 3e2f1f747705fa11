# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/texts.py, on made-up files of the published form."""

import contextlib

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_generated_pb2

from realm_jax import files
from realm_jax.data import texts
from realm_jax.data.passages import content_uid
from realm_jax.data.pretrain import MaskedTexts, sentence_of

_TEXT = "É fell. In Zürich, Ana rose."
_SENTENCES = ["É fell.", "In Zürich, Ana rose."]
_SPANS = ["Zürich", "Ana"]


def _bytes_of(parts):
  data = _TEXT.encode()
  starts = [data.index(part.encode()) for part in parts]
  return starts, [
    s + len(p.encode()) for s, p in zip(starts, parts, strict=True)
  ]


def _write(path, examples):
  with contextlib.closing(RecordWriter(str(path))) as writer:
    for columns in examples:
      example = tf_example_generated_pb2.Example()
      for name, values in columns.items():
        feature = example.features.feature[name]
        if isinstance(values[0], str):
          feature.bytes_list.value.extend(v.encode() for v in values)
        else:
          feature.int64_list.value.extend(values)
      writer.write(example.SerializeToString())


def _example(names, title="T"):
  """One block, its offsets called as in `names`."""
  starts, limits = _bytes_of(_SPANS)
  columns = {"title": [title], "text": [_TEXT]}
  columns |= {names[0]: starts, names[1]: limits}
  if len(names) > 2:
    starts, limits = _bytes_of(_SENTENCES)
    columns |= {names[2]: starts, names[3]: limits}
  return columns


_PUBLISHED = (
  *("span_byte_start", "span_byte_limit"),
  *("sentence_byte_start", "sentence_byte_limit"),
)
_DOCUMENTS = (
  "spans/start",
  "spans/limit",
  "sentences/start",
  "sentences/limit",
)


@pytest.mark.parametrize("names", [_PUBLISHED, _DOCUMENTS])
def test_blocks_have_sentences_and_a_source(tmp_path, names):
  _write(tmp_path / "w.tfrecord-00000-of-00001", [_example(names)])
  text = MaskedTexts(str(tmp_path / "w.tfrecord*"))[0]
  assert [_TEXT[start:end] for start, end in text.spans] == _SPANS
  assert [_TEXT[start:end] for start, end in text.sentences] == _SENTENCES
  assert text.source_uid == content_uid("T", _TEXT)
  asked = sentence_of(text, text.spans[1])
  assert asked.text == _SENTENCES[1] and asked.spans == ((11, 14),)


def test_sentences_stand_for_themselves(tmp_path):
  _write(tmp_path / "s.tfrecord", [_example(_DOCUMENTS[:2])])
  text = MaskedTexts(str(tmp_path / "s.tfrecord"))[0]
  assert text.sentences == () and text.source_uid == ""
  assert sentence_of(text, text.spans[0]).text == _TEXT


def test_files_follow_one_another_by_name(tmp_path):
  for file in range(3):
    examples = [_example(_PUBLISHED, title=f"{file}{i}") for i in range(file)]
    _write(tmp_path / f"w.tfrecord-{file}", examples)
  found = texts.open_texts(str(tmp_path / "w.tfrecord*"))
  uids = [found[i]["source_uid"] for i in range(len(found))]
  assert uids == [content_uid(title, _TEXT) for title in ("10", "20", "21")]
  assert found.where(2).endswith("w.tfrecord-2: record 1")


class MadeUpSalient(tfds.core.GeneratorBasedBuilder):
  """Of the features that salient_span_wikipedia/documents has."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    spans = {"start": np.int32, "limit": np.int32, "type": np.str_}
    sentences = {"start": np.int32, "limit": np.int32}
    features = {
      "title": tfds.features.Text(),
      "text": tfds.features.Text(),
      "spans": tfds.features.Sequence(spans),
      "sentences": tfds.features.Sequence(sentences),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    (starts, limits), sentences = _bytes_of(_SPANS), _bytes_of(_SENTENCES)
    spans = {"start": starts, "limit": limits, "type": ["LOC", "PER"]}
    of_sentences = {"start": sentences[0], "limit": sentences[1]}
    yield (
      0,
      {"title": "T", "text": _TEXT, "spans": spans, "sentences": of_sentences},
    )


def test_texts_in_a_store_are_those_of_a_folder(tmp_path, url):
  for name in ("a", "b"):
    _write(tmp_path / f"{name}.tfrecord", [_example(_PUBLISHED, name)])
  (tmp_path / "part-000000.jsonl").write_text('{"text": "One."}\n')
  (tmp_path / "part-000001.jsonl").write_text('{"text": "Two."}\n')
  (tmp_path / "STATISTICS.json").write_text("{}")
  for path in tmp_path.iterdir():
    files.upload(path, f"{url}/{path.name}")
  for name in ("*.tfrecord", "part-000001.jsonl", ""):
    here, there = (texts.open_texts(f"{at}/{name}") for at in (tmp_path, url))
    assert [here[i] for i in range(len(here))] == [
      there[i] for i in range(len(there))
    ]
    assert there.where(0).startswith(url)


def test_a_prepared_set_is_read_by_its_name(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  made = MadeUpSalient(data_dir=str(tmp_path), file_format="array_record")
  made.download_and_prepare()
  text = MaskedTexts("tfds:made_up_salient/train")[0]
  assert [_TEXT[start:end] for start, end in text.spans] == _SPANS
  assert [_TEXT[start:end] for start, end in text.sentences] == _SENTENCES
  assert text.source_uid == content_uid("T", _TEXT)


def test_what_is_no_text_is_refused(tmp_path):
  _write(tmp_path / "a.tfrecord", [{"question": ["Who?"]}])
  with pytest.raises(ValueError, match=r"record 0: expected the fields of sal"):
    MaskedTexts(str(tmp_path / "a.tfrecord"))
  wrong = _example(_PUBLISHED)
  wrong["span_byte_start"] = [1, 25]  # Inside a character of two bytes.
  _write(tmp_path / "b.tfrecord", [wrong])
  with pytest.raises(ValueError, match="no stretch of whole characters"):
    MaskedTexts(str(tmp_path / "b.tfrecord"))
  with contextlib.closing(RecordWriter(str(tmp_path / "c.tfrecord"))) as writer:
    writer.write(b"rubbish")
  with pytest.raises(ValueError, match=r"record 0: no tf\.train\.Example"):
    MaskedTexts(str(tmp_path / "c.tfrecord"))
  with pytest.raises(ValueError, match="`realm tag-spans` did not make it"):
    MaskedTexts(str(tmp_path))
