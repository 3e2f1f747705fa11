# SPDX-License-Identifier: Apache-2.0
"""Pre-training texts by number, from any of the forms that they come in."""

import bisect
import itertools
from typing import Any, Protocol, runtime_checkable

from etils import epath
import numpy as np

from realm_jax import files
from realm_jax.data.jsonl import JsonLines
from realm_jax.data.passages import content_uid
from realm_jax.data.sources import source_paths
from realm_jax.data.tagged import PARTS, SETTINGS, STATISTICS
from realm_jax.data.tfds_records import PREFIX, open_split
from realm_jax.data.tfrecord import RecordFile


@runtime_checkable
class TextRecords(Protocol):
  """Objects with the fields that `MaskedTexts` reads."""

  def __len__(self) -> int: ...

  def where(self, index: int) -> str:
    """Returns where an object stands, for messages."""
    ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_texts(path: str) -> TextRecords:
  """Opens texts.

  Args:
    path: a JSONL file; a folder that `realm tag-spans` has finished; or TFDS'
      salient_span_wikipedia: "tfds:salient_span_wikipedia/<config>/<split>",
      or its files, by a name or pattern with ".tfrecord" in it. Files and
      folders may be in a store.

  Raises:
    OSError: it cannot be opened.
    ValueError: it is empty, unfinished or of another kind.
  """
  if path.startswith(PREFIX):
    return _TfdsTexts(path)
  if ".tfrecord" in path:
    return _chained([_ExampleFile(name) for name in source_paths(path)], path)
  if (folder := epath.Path(path)).is_dir():
    return _open_folder(folder)
  return JsonLines(path)


def _open_folder(folder: epath.Path) -> TextRecords:
  if not (folder / STATISTICS).exists():
    begun = (folder / SETTINGS).exists()
    raise ValueError(
      f"{folder} is not finished: run the same `realm tag-spans` again."
      if begun
      else f"{folder} is a folder, and `realm tag-spans` did not make it: "
      "name a file."
    )
  # A part whose texts have no span has no line.
  parts = [path for path in sorted(folder.glob(PARTS)) if files.size(path)]
  return _chained([JsonLines(path) for path in parts], str(folder))


def _chained(files: list[Any], path: str) -> TextRecords:
  chain = _Chain(files)
  if len(chain) == 0:
    raise ValueError(f"{path} has no text.")
  return chain


class _Chain:
  """Several files as one."""

  def __init__(self, files: list[TextRecords]) -> None:
    self._files = files
    self._ends = list(itertools.accumulate(len(file) for file in files))

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def _place(self, index: int) -> tuple[TextRecords, int]:
    file = bisect.bisect_right(self._ends, index)
    return self._files[file], index - (self._ends[file - 1] if file else 0)

  def where(self, index: int) -> str:
    file, place = self._place(index)
    return file.where(place)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file, place = self._place(index)
    return file[place]


class _TfdsTexts:
  """A prepared split with random access."""

  def __init__(self, name: str) -> None:
    self._name = name
    self._source = open_split(name)

  def __len__(self) -> int:
    return len(self._source)

  def where(self, index: int) -> str:
    return f"{self._name}: record {index}"

  def __getitem__(self, index: int) -> dict[str, Any]:
    found = self._source[index]
    flat = {
      f"{name}/{part}" if isinstance(value, dict) else name: column
      for name, value in found.items()
      for part, column in (
        value.items() if isinstance(value, dict) else [("", value)]
      )
    }
    return _from_features(flat, self.where(index))


class _ExampleFile:
  """The `tf.train.Example`s of a TFRecord file, read without TensorFlow."""

  def __init__(self, path: str) -> None:
    # Slow to import, and only these files need it; TFDS has it compiled.
    from tensorflow_datasets.proto import tf_example_generated_pb2

    self._parse = tf_example_generated_pb2.Example.FromString
    self._records = RecordFile(path)

  def __len__(self) -> int:
    return len(self._records)

  def where(self, index: int) -> str:
    return self._records.where(index)

  def __getitem__(self, index: int) -> dict[str, Any]:
    where = self.where(index)
    try:
      example = self._parse(self._records[index])
    except Exception as error:  # protobuf's own, of no public class.
      raise ValueError(f"{where}: no tf.train.Example: {error}") from error
    columns: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
      kind = feature.WhichOneof("kind")
      columns[name] = list(getattr(feature, kind).value) if kind else []
    return _from_features(columns, where)


# The same offsets as TFDS names them, and as REALM's own files do.
_SPANS = (
  ("spans/start", "spans/limit"),
  ("span_byte_start", "span_byte_limit"),
)
_SENTENCES = (
  ("sentences/start", "sentences/limit"),
  ("sentence_byte_start", "sentence_byte_limit"),
)


def _from_features(columns: dict[str, Any], where: str) -> dict[str, Any]:
  text = _string(columns.get("text"))
  spans = _pairs(columns, _SPANS)
  if text is None or spans is None:
    raise ValueError(
      f"{where}: expected the fields of salient_span_wikipedia, 'text' and "
      f"'spans/start' among them, got {sorted(columns)}."
    )
  found: dict[str, Any] = {"text": text, "byte_spans": spans}
  sentences = _pairs(columns, _SENTENCES)
  if sentences is not None:
    found["byte_sentences"] = sentences
    # A whole block; a corpus of the same blocks, without uids, has this one.
    title = _string(columns.get("title")) or ""
    found["source_uid"] = content_uid(title, text)
  return found


def _string(value: Any) -> str | None:
  values = value if isinstance(value, list) else [value]
  found = values[0] if values else None
  return found.decode("utf-8") if isinstance(found, bytes) else found


def _pairs(
  columns: dict[str, Any], names: tuple[tuple[str, str], ...]
) -> list[list[int]] | None:
  for start, limit in names:
    if start in columns and limit in columns:
      return np.stack([columns[start], columns[limit]], axis=1).tolist()
  return None
