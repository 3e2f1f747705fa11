# SPDX-License-Identifier: Apache-2.0
"""What the demo reads: documents, and training and held-out files of facts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
import pathlib
from typing import Any

from experiments.factbook_demo import facts as facts_lib
from experiments.factbook_demo import wordings
from experiments.factbook_demo.facts import Fact
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.factbook import read_factbook
from realm_jax.data.records import Document, Passage
from realm_jax.data.tokenize import Tokenizer
from realm_jax.eval.scores import exact_match

MAX_VALUE_PIECES = 8
UNSEEN_WORDINGS = "test_qa_unseen_wordings.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedFact:
  """A fact, and the passage that holds its value."""

  fact: Fact
  passage_uid: str


def demo_documents() -> list[Document]:
  """Returns the factbook's documents in the fields that facts come from.

  They are a quarter of them all: few enough for an index over them to be
  rebuilt in seconds.
  """
  fields = {relation.field for relation in facts_lib.RELATIONS.values()}
  return list(read_factbook(fields))


def write_documents(path: pathlib.Path, documents: Iterable[Document]) -> None:
  """Writes JSONL for `realm prepare-corpus` and `realm edit-corpus`."""
  write_jsonl(
    path,
    ({"title": d.title, "text": d.text, "uid": d.uid} for d in documents),
  )


def place_facts(
  facts: Iterable[Fact],
  corpus: PassageCorpus,
  tokenizer: Tokenizer,
  max_query_pieces: int,
) -> list[PlacedFact]:
  """Finds each fact's passage; leaves out what does not fit the model.

  Args:
    facts: to look up.
    corpus: of the documents that the facts were read from.
    tokenizer: the corpus' own.
    max_query_pieces: what the longest wording of a fact may have, special
      tokens not counted.
  """
  placed = []
  for fact in facts:
    said = wordings.load_wordings()[fact.relation]
    texts = [wordings.state(one, fact)[0] for one in said.statements]
    texts += [wordings.ask(one, fact) for one in said.questions + said.unseen]
    longest = max(len(found) for found in tokenizer.encode_batch(texts))
    holders = [
      passage.uid
      for passage in document_passages(corpus, fact.document_uid)
      if fact.evidence in passage.text
    ]
    is_short = len(tokenizer.encode(fact.value)) <= MAX_VALUE_PIECES
    if is_short and longest <= max_query_pieces and len(holders) == 1:
      placed.append(PlacedFact(fact=fact, passage_uid=holders[0]))
  return placed


def write_examples(
  placed: Sequence[PlacedFact], directory: pathlib.Path
) -> None:
  """Writes {train,validation,test}_{text,qa}.jsonl and the unseen wordings.

  Training gets every wording of a fact, the others one each. Nothing about a
  validation or test fact is in a training file.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for split in ("train", "validation", "test"):
    chosen = [one for one in placed if one.fact.split == split]
    every = split == "train"
    texts = (line for one in chosen for line in _text_lines(one, every))
    write_jsonl(directory / f"{split}_text.jsonl", texts)
    questions = (line for one in chosen for line in _question_lines(one, every))
    write_jsonl(directory / f"{split}_qa.jsonl", questions)
  unseen = (unseen_question(one) for one in placed if one.fact.split == "test")
  write_jsonl(directory / UNSEEN_WORDINGS, unseen)


def majority_exact_match(placed: Sequence[PlacedFact]) -> float:
  """Returns how often each relation's commonest training value is right.

  That is, on the test facts: what one gets by knowing the kind of question
  and nothing of the country.
  """
  values: dict[str, Counter[str]] = {}
  for one in placed:
    if one.fact.split == "train":
      counts = values.setdefault(one.fact.relation, Counter())
      counts[one.fact.value] += 1
  test = [one.fact for one in placed if one.fact.split == "test"]
  right = sum(
    exact_match(values[fact.relation].most_common(1)[0][0], [fact.value])
    for fact in test
  )
  return right / len(test)


def question(one: PlacedFact) -> dict[str, Any]:
  """Returns a held-out fact's question, in a wording that training knows."""
  return next(_question_lines(one, False))


def unseen_question(one: PlacedFact) -> dict[str, Any]:
  """Returns a held-out fact's question, in a wording never trained on."""
  said = wordings.load_wordings()[one.fact.relation]
  return _question_line(one, _pick(said.unseen, one.fact))


def document_passages(corpus: PassageCorpus, uid: str) -> list[Passage]:
  """Returns a document's passages, in order."""
  names = (f"{uid}#{part}" if part else uid for part in itertools.count())
  rows = itertools.takewhile(
    lambda row: row is not None, map(corpus.row_of, names)
  )
  return corpus.passages([row for row in rows if row is not None])


def write_jsonl(path: pathlib.Path, lines: Iterable[dict[str, Any]]) -> None:
  """Writes one object a line; the file appears when it is complete."""
  draft = path.with_suffix(".draft")
  with draft.open("w", encoding="utf-8") as file:
    for line in lines:
      file.write(json.dumps(line, ensure_ascii=False) + "\n")
  draft.rename(path)


def _text_lines(one: PlacedFact, every: bool) -> Iterator[dict[str, Any]]:
  templates = wordings.load_wordings()[one.fact.relation].statements
  for template in templates if every else [_pick(templates, one.fact)]:
    text, span = wordings.state(template, one.fact)
    yield {"text": text, "spans": [span], "passage_uid": one.passage_uid}


def _question_lines(one: PlacedFact, every: bool) -> Iterator[dict[str, Any]]:
  templates = wordings.load_wordings()[one.fact.relation].questions
  for template in templates if every else [_pick(templates, one.fact)]:
    yield _question_line(one, template)


def _question_line(one: PlacedFact, template: str) -> dict[str, Any]:
  return {
    "question": wordings.ask(template, one.fact),
    "answers": [one.fact.value],
    "passage_uid": one.passage_uid,
  }


def _pick(templates: Sequence[str], fact: Fact) -> str:
  """Chooses a wording for a fact, the same one on every run."""
  digest = hashlib.sha256(f"{fact.country}/{fact.relation}/wording".encode())
  return templates[int.from_bytes(digest.digest()[:8], "big") % len(templates)]
