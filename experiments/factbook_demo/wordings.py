# SPDX-License-Identifier: Apache-2.0
"""Facts put into words: sentences with the value marked, and questions."""

import dataclasses
import functools
import pathlib
import tomllib

from experiments.factbook_demo.facts import Fact

_FILE = pathlib.Path(__file__).with_name("wordings.toml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wordings:
  """How one relation is said; a template has {country} and so on in it."""

  statements: tuple[str, ...]
  questions: tuple[str, ...]
  unseen: tuple[str, ...]  # Questions in wordings never trained on.


@functools.cache
def load_wordings() -> dict[str, Wordings]:
  """Returns the wordings of each relation."""
  raw = tomllib.loads(_FILE.read_text(encoding="utf-8"))
  return {
    relation: Wordings(**{kind: tuple(said) for kind, said in kinds.items()})
    for relation, kinds in raw.items()
  }


def state(template: str, fact: Fact) -> tuple[str, tuple[int, int]]:
  """Returns a sentence and where in it the value stands, in characters."""
  before, after = template.split("{value}")
  before, after = (_fill(part, fact) for part in (before, after))
  start = len(before)
  return before + fact.value + after, (start, start + len(fact.value))


def ask(template: str, fact: Fact) -> str:
  """Returns a question to which the value is the answer."""
  return _fill(template, fact)


def _fill(template: str, fact: Fact) -> str:
  return template.format(country=fact.country, other=fact.other)
