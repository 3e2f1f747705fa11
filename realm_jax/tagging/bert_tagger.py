# SPDX-License-Identifier: Apache-2.0
"""Named entities by a BERT for token classification, on this host's devices.

REALM's tagger was one, trained on CoNLL-2003; any such checkpoint will do.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
import json
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int32
import numpy as np

from realm_jax import forward, sharding
from realm_jax.data import collate
from realm_jax.data.entities import OUTSIDE, LabeledSpan, decode_labels
from realm_jax.data.tokenize import Encoding, Tokenizer, load_tokenizer
from realm_jax.models.token_classifier import (
  LoadedClassifier,
  TokenClassifier,
  load_token_classifier,
)
from realm_jax.shapes import Array, Params, TokenRows

# Rows are padded to one of these: each is compiled for once.
_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_CONTINUES = "##"


class _Window(NamedTuple):
  """A stretch of a sentence that fits a row; nearly always all of it."""

  sentence: int
  first: int  # Piece of the sentence.
  stop: int


class BertTagger:
  """A checkpoint's classifier; a word has the label of its first piece."""

  def __init__(
    self, source: str, *, dtype: Literal["float32", "bfloat16"] = "float32"
  ) -> None:
    """Loads a checkpoint with its tokenizer; compiles nothing yet.

    Args:
      source: as `load_token_classifier` takes it.
      dtype: of the activations.

    Raises:
      ValueError: there is none, or its vocabulary is not its tokenizer's.
      OSError: it cannot be read.
    """
    found = load_token_classifier(source)
    self._config = dataclasses.replace(found.config, dtype=dtype)
    self._tokenizer = load_tokenizer(found.folder)
    if self._tokenizer.vocab_size > self._config.vocab_size:
      raise ValueError(
        f"{found.folder}: the tokenizer has {self._tokenizer.vocab_size} "
        f"pieces and the model {self._config.vocab_size}."
      )
    self._labels = found.labels
    self.fingerprint = f"bert {_digest(found, self._tokenizer)} {dtype}"
    vocabulary = np.arange(self._tokenizer.vocab_size)
    self._goes_on = np.array(
      [p.startswith(_CONTINUES) for p in self._tokenizer.tokens(vocabulary)]
    )
    self._mesh = sharding.local_mesh()
    self._params = jax.device_put(found.params, sharding.replicated(self._mesh))
    self._longest = min(_LENGTHS[-1], self._config.max_positions)
    self._classify = self._compiled(len(found.labels))

  def _compiled(self, num_labels: int) -> jax.stages.Wrapped:
    module = TokenClassifier(self._config, num_labels)
    batch = sharding.batch_sharding(self._mesh)

    def classify(params: Params, rows: TokenRows) -> Array:
      logits: Any = module.apply({"params": params}, **rows, deterministic=True)
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    return jax.jit(
      classify,
      in_shardings=(sharding.replicated(self._mesh), batch),
      out_shardings=batch,
    )

  def tag(self, sentences: Sequence[str]) -> list[list[LabeledSpan]]:
    """Returns the spans of each sentence, in characters, ascending."""
    encodings = self._tokenizer.encode_batch(sentences)
    labels = self._label_pieces(encodings)
    return [
      self._spans(encoding, found)
      for encoding, found in zip(encodings, labels, strict=True)
    ]

  def _spans(
    self, encoding: Encoding, labels: Int32[np.ndarray, "n"]
  ) -> list[LabeledSpan]:
    if all(self._labels[label] == OUTSIDE for label in np.unique(labels)):
      return []
    first = np.flatnonzero(~self._goes_on[encoding.ids])
    if len(first) == 0:
      return []
    # A word ends with the last piece before the next word.
    last = np.append(first[1:], len(encoding)) - 1
    named = [self._labels[label] for label in labels[first]]
    return [
      LabeledSpan(
        int(encoding.starts[first[word.start]]),
        int(encoding.ends[last[word.end - 1]]),
        word.label,
      )
      for word in decode_labels(named)
    ]

  def _label_pieces(
    self, encodings: Sequence[Encoding]
  ) -> list[Int32[np.ndarray, "_"]]:
    """Returns the label of each piece of each sentence."""
    labels = [np.zeros(len(encoding), np.int32) for encoding in encodings]
    windows = list(self._windows(encodings))
    classify = functools.partial(self._classify, self._params)
    batches = self._batches(encodings, windows)
    for members, found in forward.computed(batches, classify):
      for window, row in zip(members, found, strict=False):
        length = window.stop - window.first
        labels[window.sentence][window.first : window.stop] = row[
          1 : 1 + length
        ]  # [CLS] comes first.
    return labels

  def _windows(self, encodings: Sequence[Encoding]) -> Iterator[_Window]:
    room = self._longest - 2  # [CLS] and [SEP].
    for sentence, encoding in enumerate(encodings):
      first = 0
      while first < len(encoding):
        stop = min(first + room, len(encoding))
        if stop < len(encoding):
          # Between words, if there are two.
          words = np.flatnonzero(~self._goes_on[encoding.ids[first : stop + 1]])
          stop = first + int(words[-1]) if words[-1:].any() else stop
        yield _Window(sentence, first, stop)
        first = stop

  def _batches(
    self, encodings: Sequence[Encoding], windows: list[_Window]
  ) -> Iterator[tuple[list[_Window], TokenRows]]:
    """Yields windows and their rows of a static shape, longest first."""
    num_tokens = np.array([w.stop - w.first + 2 for w in windows], np.int64)
    order = np.argsort(-num_tokens, kind="stable")
    start = 0
    while start < len(order):
      length = self._static_length(int(num_tokens[order[start]]))
      per_device = forward.rows_per_device(length, self._mesh)
      num_rows = per_device * self._mesh.size
      members = [windows[i] for i in order[start : start + num_rows]]
      pieces = [encodings[w.sentence].ids[w.first : w.stop] for w in members]
      # Rows of nothing fill the last batch up.
      pieces += [np.zeros(0, np.int32)] * (num_rows - len(members))
      yield members, collate.query_rows(pieces, self._tokenizer, length)
      start += num_rows

  def _static_length(self, num_tokens: int) -> int:
    fitting = next(length for length in _LENGTHS if length >= num_tokens)
    return min(fitting, self._longest)


def _digest(found: LoadedClassifier, tokenizer: Tokenizer) -> str:
  """Returns a digest of a classifier's weights, labels and vocabulary."""
  facts = [
    dataclasses.asdict(found.config),
    found.labels,
    tokenizer.fingerprint,
  ]
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(found.params):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()
