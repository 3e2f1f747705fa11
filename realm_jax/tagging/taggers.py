# SPDX-License-Identifier: Apache-2.0
"""What finds the names in sentences: a BERT, a spaCy pipeline, or rules."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from realm_jax.data.entities import LabeledSpan
from realm_jax.data.salient_spans import RuleTagger

SPACY = "spacy:"
RULES = "rules"


@runtime_checkable
class SentenceTagger(Protocol):
  """Names what is in sentences.

  Attributes:
    fingerprint: of all that decides what it finds.
  """

  fingerprint: str

  def tag(self, sentences: Sequence[str]) -> list[list[LabeledSpan]]:
    """Returns the spans of each sentence, in characters, ascending."""
    ...


class _Rules:
  """`RuleTagger`'s spans, which have no kinds."""

  fingerprint = RULES

  def tag(self, sentences: Sequence[str]) -> list[list[LabeledSpan]]:
    tagger = RuleTagger()
    return [
      [LabeledSpan(start, end, "SPAN") for start, end in tagger.tag(sentence)]
      for sentence in sentences
    ]


def open_tagger(
  name: str, dtype: Literal["float32", "bfloat16"]
) -> SentenceTagger:
  """Opens a tagger by name.

  Args:
    name: folder or Hugging Face name of a BERT for token classification;
      "spacy:<pipeline>", a folder or an installed package; or "rules".
    dtype: of a BERT's activations.

  Raises:
    ValueError: there is none of that name, or it cannot do this.
  """
  if name == RULES:
    return _Rules()
  if name.startswith(SPACY):
    from realm_jax.tagging.spacy_tagger import SpacyTagger

    return SpacyTagger(name.removeprefix(SPACY))
  # Slow to import, and only this one needs JAX.
  from realm_jax.tagging.bert_tagger import BertTagger

  return BertTagger(name, dtype=dtype)
