# SPDX-License-Identifier: Apache-2.0
"""Facts that the factbook states plainly, read off with one pattern each."""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
import re
from typing import Literal

from realm_jax.data.factbook import slug
from realm_jax.data.records import Document

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """That `country` has `value` for `relation`."""

  country: str
  relation: str
  value: str  # As it stands in the document.
  document_uid: str
  # What surrounds the value there, so that the passage which holds it can be
  # told from another that happens to hold the same characters.
  evidence: str
  other: str = ""  # The second country of a "border".

  @property
  def split(self) -> Split:
    """The same for ever: it depends on the fact's name and nothing else."""
    name = f"{self.country}/{self.relation}"
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < 0.70:
      return "train"
    return "validation" if share < 0.85 else "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
  """Where a relation's values stand: a field, and a pattern in its text."""

  field: str
  pattern: str  # Multi-line; has a group "value", and may have "other".


_NUMBER = r"(?P<value>[\d,]*\.?\d+)"
# A name or phrase, up to what closes it.
_PHRASE = r"(?P<value>[^\s\d(;,:.][^\n\d(;,:]*?)"
_END = r"(?=\.$|[;,]| \()"

RELATIONS = {
  "capital": Relation(
    field="Capital", pattern=rf"^Name: {_PHRASE}(?: \([^)]*\))?\.$"
  ),
  "capital coordinates": Relation(
    field="Capital",
    pattern=r"^Geographic coordinates: "
    r"(?P<value>\d+ \d+ [NS], \d+ \d+ [EW])\.$",
  ),
  "time zone": Relation(
    field="Capital",
    pattern=r"^Time difference: (?P<value>UTC ?[-+]?[\d:.]*\d)(?= \()",
  ),
  "chief of state": Relation(
    field="Executive branch", pattern=rf"^Chief of state: {_PHRASE} \(since"
  ),
  "head of government": Relation(
    field="Executive branch",
    pattern=rf"^Head of government: {_PHRASE} \(since",
  ),
  "highest point": Relation(
    field="Elevation", pattern=rf"^Highest point: {_PHRASE} [\d,]+(?: m)?\.$"
  ),
  "highest elevation": Relation(
    field="Elevation",
    pattern=r"^Highest point: [^\n\d(;]+ (?P<value>[\d,]+ m)\.$",
  ),
  "lowest point": Relation(
    field="Elevation", pattern=rf"^Lowest point: {_PHRASE} -?[\d,]+ m\.$"
  ),
  "mean elevation": Relation(
    field="Elevation", pattern=r"^Mean elevation: (?P<value>[\d,]+ m)\.$"
  ),
  "area": Relation(
    field="Area", pattern=r"^Total: (?P<value>[\d,.]+ sq km)\.$"
  ),
  "land boundaries": Relation(
    field="Land boundaries",
    pattern=r"^Total: (?P<value>(?!0 )[\d,.]+ km)\.$",
  ),
  "border": Relation(
    field="Land boundaries",
    pattern=r"(?<=[:;] )(?P<other>[A-Z][A-Za-z ]+) "
    r"(?P<value>[\d,.]+ km)(?=;|\.$)",
  ),
  "coastline": Relation(
    field="Coastline",
    pattern=r"^Coastline: (?P<value>(?!0 )[\d,.]+ km)(?=\.$| \()",
  ),
  "climate": Relation(field="Climate", pattern=rf"^Climate: {_PHRASE}{_END}"),
  "population": Relation(
    field="Population", pattern=r"^Total: (?P<value>[\d,]+)(?=\.$| \()"
  ),
  "median age": Relation(
    field="Median age", pattern=r"^Total: (?P<value>[\d.]+ years)(?= \()"
  ),
  "birth rate": Relation(
    field="Birth rate", pattern=rf"^Birth rate: {_NUMBER} births"
  ),
  "life expectancy": Relation(
    field="Life expectancy at birth",
    pattern=r"^Total population: (?P<value>[\d.]+ years)(?= \()",
  ),
  "fertility": Relation(
    field="Total fertility rate",
    pattern=rf"^Total fertility rate: {_NUMBER} children",
  ),
  "urban population": Relation(
    field="Urbanization", pattern=r"^Urban population: (?P<value>[\d.]+%)"
  ),
  "official language": Relation(
    field="Languages",
    pattern=r"^(?:Languages: )?(?P<value>[A-Z][^\n\d(;,:]*?) \(official\)",
  ),
  "religion": Relation(
    field="Religions", pattern=rf"^Religions: {_PHRASE}(?= [\d(]|,)"
  ),
  "independence": Relation(
    field="Independence",
    pattern=r"^Independence: (?P<value>\d{1,2} [A-Z][a-z]+ \d{4})(?=\.$| \()",
  ),
  "national holiday": Relation(
    field="National holiday",
    pattern=r"^National holiday: [^\n\d;]+, "
    r"(?P<value>\d{1,2} [A-Z][a-z]+)(?=\.$| \(\d{4}\)\.$)",
  ),
  "national symbol": Relation(
    field="National symbol(s)",
    pattern=rf"^National symbol\(s\): {_PHRASE}{_END}",
  ),
  "national anthem": Relation(
    field="National anthem(s)", pattern=r'^Title: "(?P<value>[^"\n]+)"'
  ),
  "currency": Relation(
    field="Exchange rates",
    pattern=rf"^Currency: {_PHRASE} \([A-Z]{{3}}\) per US dollar",
  ),
  "internet code": Relation(
    field="Internet country code",
    pattern=r"^Internet country code: (?P<value>\.[a-z]{2})(?=\.$|;| )",
  ),
  "airports": Relation(
    field="Airports", pattern=r"^Airports: (?P<value>[\d,]+)(?= \()"
  ),
  "GDP": Relation(
    field="GDP (official exchange rate)",
    pattern=r"^GDP \(official exchange rate\): "
    r"(?P<value>\$[\d,.]+ [mbt]illion)(?= \()",
  ),
  "GDP per capita": Relation(
    field="Real GDP per capita",
    pattern=r"^Real GDP per capita\.\n"
    r"Real GDP per capita \d{4}: (?P<value>\$[\d,]+)(?= \()",
  ),
  "export partner": Relation(
    field="Exports - partners", pattern=rf"^Exports - partners: {_PHRASE} \d+%"
  ),
  "import partner": Relation(
    field="Imports - partners", pattern=rf"^Imports - partners: {_PHRASE} \d+%"
  ),
  "export commodity": Relation(
    field="Exports - commodities",
    pattern=rf"^Exports - commodities: {_PHRASE}(?=,)",
  ),
  "agricultural product": Relation(
    field="Agricultural products",
    pattern=rf"^Agricultural products: {_PHRASE}(?=,)",
  ),
  "railways": Relation(
    field="Railways", pattern=r"^Total: (?P<value>[\d,.]+ km)(?= \()"
  ),
}

# Pairs whose values may be one and the same fact under two names: a president
# who heads the government too, an independence day, a land boundary with one
# neighbour. The second is dropped then, lest a training sentence tell a
# held-out fact.
_MAY_REPEAT = (
  ("chief of state", "head of government"),
  ("independence", "national holiday"),
  ("land boundaries", "border"),
)
_NOT_VALUES = frozenset({"none", "NA", "unnamed location", "unknown", "other"})


def extract_facts(documents: Iterable[Document]) -> list[Fact]:
  """Returns the facts that the documents of the factbook state.

  There is at most one fact for a country and relation, and one for a border.
  """
  by_uid = {document.uid: document for document in documents}
  titles = {document.title for document in by_uid.values()}
  facts: dict[tuple[str, str], Fact] = {}
  borders = set()
  for document in by_uid.values():
    for fact in _read_document(document, titles):
      border = frozenset({fact.country, fact.other})
      if (fact.country, fact.relation) in facts or border in borders:
        continue
      facts[fact.country, fact.relation] = fact
      if fact.other:
        borders.add(border)
  return [fact for fact in facts.values() if not _is_repeat(fact, facts)]


def _read_document(document: Document, titles: set[str]) -> Iterator[Fact]:
  field = document.uid.rpartition("/")[2]
  for name, relation in RELATIONS.items():
    if slug(relation.field) != field:
      continue
    for found in re.finditer(relation.pattern, document.text, re.MULTILINE):
      fact = Fact(
        country=document.title,
        relation=name,
        value=found["value"],
        document_uid=document.uid,
        evidence=found.group(),
        other=found.groupdict().get("other") or "",
      )
      if _is_clean(fact) and (not fact.other or fact.other in titles):
        yield fact


def _is_clean(fact: Fact) -> bool:
  """Whether there is a value, and the country's name does not give it away."""
  country, value = fact.country.lower(), fact.value.lower()
  is_given = value in country or country in value
  return fact.value not in _NOT_VALUES and " or " not in value and not is_given


def _is_repeat(fact: Fact, facts: dict[tuple[str, str], Fact]) -> bool:
  for first, second in _MAY_REPEAT:
    if fact.relation == second:
      for country in (fact.country, fact.other):
        earlier = facts.get((country, first))
        if earlier and fact.value in earlier.value:
          return True
  return False
