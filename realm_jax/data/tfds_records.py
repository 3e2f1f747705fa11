# SPDX-License-Identifier: Apache-2.0
"""Records of TensorFlow Datasets, by number, read without TensorFlow."""

import importlib.util
from typing import Any

import numpy as np

PREFIX = "tfds:"


class TfdsRecords:
  """The objects of one split, with the fields that a JSONL file would have."""

  def __init__(self, name: str) -> None:
    """Opens a split; it is downloaded and prepared if need be.

    Args:
      name: "tfds:natural_questions_open/train", or with a config
        ("tfds:squad/v1.1/train") and a version ("…/v1.1:3.0.0/train"). It is
        looked for under $TFDS_DATA_DIR, by default ~/tensorflow_datasets.

    Raises:
      ValueError: no such set or split, one that needs TensorFlow, or one that
        was prepared in a format without random access.
      OSError: it cannot be downloaded.
    """
    self.path = name
    self._source = open_split(name)

  def __len__(self) -> int:
    return len(self._source)

  def where(self, index: int) -> str:
    """Returns "name: record number" of an object."""
    return f"{self.path}: record {index}"

  def __getitem__(self, index: int) -> dict[str, Any]:
    found = self._source[index]
    wanted = found.get("answers", found.get("answer"))
    if isinstance(wanted, dict):  # SQuAD keeps them with their places.
      wanted = wanted["text"]
    answers = [_text(answer) for answer in np.atleast_1d(wanted).tolist()]
    return {
      "question": _text(found.get("question")),
      "answers": list(dict.fromkeys(answers)),
    }


def _text(found: Any) -> Any:
  return found.decode("utf-8") if isinstance(found, bytes) else found


def open_split(name: str) -> Any:
  """Returns a split's records by number, each a dict of what TFDS decodes.

  Raises:
    ValueError, OSError: as `TfdsRecords` does.
  """
  dataset, _, split = name.removeprefix(PREFIX).rpartition("/")
  if not dataset or not split:
    raise ValueError(
      f"{name} names no split: write {PREFIX}<set>/<split>, as in "
      f"{PREFIX}natural_questions_open/train."
    )
  # Slow to import, and only these records need it.
  import tensorflow_datasets as tfds

  try:
    return tfds.data_source(dataset, split=split)
  except tfds.core.DatasetNotFoundError as error:
    if importlib.util.find_spec("tensorflow"):
      raise ValueError(f"{name}: TFDS has no set {dataset!r}.") from error
    raise ValueError(
      f"{name}: TFDS without TensorFlow has no set {dataset!r}. Older sets, "
      "web_questions among them, need it to be prepared: pip install "
      "'realm-jax[tf]'. Prepared once in the format array_record, a set is "
      "read without it; or give a JSONL file."
    ) from error
  except ImportError as error:
    raise ValueError(
      f"{name}: preparing this set needs a package that is not there "
      f"({error}); for TensorFlow, pip install 'realm-jax[tf]'."
    ) from error
  except NotImplementedError as error:
    raise ValueError(
      f"{name} was prepared in a format without random access; prepare it "
      "anew with file_format='array_record', in another $TFDS_DATA_DIR."
    ) from error
