# SPDX-License-Identifier: Apache-2.0
"""Edits to the corpus: does a changed passage change the answer?"""

from collections.abc import Sequence
import dataclasses
import random
from typing import Any

from experiments.factbook_demo.examples import PlacedFact, question
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Document

NUM_EDITS = 20
SEED = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
  """That a held-out fact's document is to state another value."""

  placed: PlacedFact
  value: str  # The new one: another country's, for the same relation.


def choose_edits(
  placed: Sequence[PlacedFact],
  corpus: PassageCorpus,
  num_edits: int = NUM_EDITS,
  seed: int = SEED,
) -> list[Edit]:
  """Draws test facts to change, without a look at any model's answer.

  A fact can be drawn if its value stands once in its passage, so that the
  edited passage no longer holds it, and if its document is not drawn yet.

  Raises:
    ValueError: there are fewer such facts than edits.
  """
  rng = random.Random(seed)
  test = [one for one in placed if one.fact.split == "test"]
  rng.shuffle(test)
  edits: dict[str, Edit] = {}
  for one in test:
    if len(edits) == num_edits:
      break
    row = corpus.row_of(one.passage_uid)
    if row is None or one.fact.document_uid in edits:
      continue
    text = corpus.passage(row).text
    others = sorted(
      {
        other.fact.value
        for other in placed
        if other.fact.relation == one.fact.relation
        and other.fact.value not in text
        and one.fact.value not in other.fact.value
      }
    )
    if text.count(one.fact.value) == 1 and others:
      edits[one.fact.document_uid] = Edit(placed=one, value=rng.choice(others))
  if len(edits) < num_edits:
    raise ValueError(
      f"{num_edits} edits were asked for, and only {len(edits)} test facts "
      "have a value that stands once in its passage."
    )
  return list(edits.values())


def edited_documents(
  documents: Sequence[Document], edits: Sequence[Edit]
) -> list[Document]:
  """Returns the documents of the edits, with the new values."""
  by_uid = {document.uid: document for document in documents}
  edited = []
  for edit in edits:
    fact = edit.placed.fact
    changed = fact.evidence.replace(fact.value, edit.value)
    document = by_uid[fact.document_uid]
    text = document.text.replace(fact.evidence, changed)
    edited.append(dataclasses.replace(document, text=text))
  return edited


def questions(edits: Sequence[Edit], after: bool) -> list[dict[str, Any]]:
  """Returns the questions, with the answers before or after the edits."""
  asked = []
  for edit in edits:
    line = question(edit.placed)
    if after:
      # Other passages of the document may begin elsewhere now.
      del line["passage_uid"]
      line["answers"] = [edit.value]
    asked.append(line)
  return asked
