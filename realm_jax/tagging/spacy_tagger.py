# SPDX-License-Identifier: Apache-2.0
"""Entities by a spaCy pipeline, where spaCy is installed."""

from collections.abc import Sequence
import hashlib
import json
from typing import Any

from realm_jax.data.entities import LabeledSpan

_SENTENCES_AT_ONCE = 256


class SpacyTagger:
  """Marks `doc.ents`; the sentences are ours, not the pipeline's."""

  def __init__(self, pipeline: str) -> None:
    """Loads a pipeline.

    Args:
      pipeline: a folder, or an installed package such as en_core_web_sm.

    Raises:
      ValueError: spaCy is not installed, or has no such pipeline.
    """
    self._nlp = _load(pipeline)
    facts = json.dumps(self._nlp.meta, sort_keys=True, default=str)
    digest = hashlib.sha256(facts.encode())
    digest.update(self._nlp.config.to_bytes())
    digest.update(self._nlp.to_bytes())
    self.fingerprint = f"spacy {digest.hexdigest()}"

  def tag(self, sentences: Sequence[str]) -> list[list[LabeledSpan]]:
    """Returns the spans of each sentence, in characters, ascending."""
    parsed = self._nlp.pipe(sentences, batch_size=_SENTENCES_AT_ONCE)
    return [
      [LabeledSpan(e.start_char, e.end_char, e.label_) for e in doc.ents]
      for doc in parsed
    ]


def _load(pipeline: str) -> Any:
  try:
    import spacy
  except ImportError as error:
    raise ValueError(
      f"The tagger spacy:{pipeline} needs spaCy, which is not installed: pip "
      "install 'realm-jax[spacy]'."
    ) from error
  try:
    return spacy.load(pipeline)
  except OSError as error:
    raise ValueError(
      f"spaCy has no pipeline {pipeline!r}. Give a folder, or install it: "
      f"python -m spacy download {pipeline}."
    ) from error
