# SPDX-License-Identifier: Apache-2.0
from collections import Counter
import dataclasses

import pytest

from experiments.factbook_demo.facts import RELATIONS, extract_facts
from realm_jax.data.records import Document


def value_of(facts, country, relation):
  (fact,) = [
    fact
    for fact in facts
    if (fact.country, fact.relation) == (country, relation)
  ]
  return fact.value


@pytest.mark.parametrize(
  ("country", "relation", "value"),
  [
    ("France", "capital", "Paris"),
    ("Laos", "capital", "Vientiane"),
    ("Luxembourg", "capital coordinates", "49 36 N, 6 07 E"),
    ("The Gambia", "time zone", "UTC 0"),
    ("Serbia", "chief of state", "President Aleksandar VUCIC"),
    ("Bermuda", "highest point", "Town Hill"),
    ("Bermuda", "highest elevation", "79 m"),
    ("Jordan", "lowest point", "Dead Sea"),
    ("Monaco", "area", "2 sq km"),
    ("Lesotho", "religion", "Protestant"),
    ("Ireland", "independence", "6 December 1921"),
    ("Faroe Islands", "national holiday", "29 July"),
    ("Mongolia", "national anthem", "Mongol ulsyn toriin duulal"),
    ("Mozambique", "currency", "meticais"),
    ("Germany", "internet code", ".de"),
    ("Bulgaria", "GDP", "$112.212 billion"),
    ("Kenya", "export partner", "Uganda"),
  ],
)
def test_facts_are_read_from_the_real_factbook(facts, country, relation, value):
  assert value_of(facts, country, relation) == value


def test_each_relation_has_many_facts_with_a_place_of_their_own(
  facts, documents
):
  texts = {document.uid: document.text for document in documents}
  counts = Counter(fact.relation for fact in facts)

  assert set(counts) == set(RELATIONS)
  assert min(counts.values()) > 80
  assert sum(counts.values()) > 6_000
  assert len({(fact.country, fact.relation) for fact in facts}) == len(facts)
  for fact in facts:
    assert fact.value in fact.evidence
    assert texts[fact.document_uid].count(fact.evidence) == 1


def test_the_country_does_not_give_the_value_away(facts):
  for fact in facts:
    assert fact.value.lower() not in fact.country.lower()
    assert fact.country.lower() not in fact.value.lower()


def test_splits_are_fixed_shares_that_do_not_overlap(facts):
  counts = Counter(fact.split for fact in facts)

  assert counts["train"] / len(facts) == pytest.approx(0.70, abs=0.02)
  assert counts["validation"] / len(facts) == pytest.approx(0.15, abs=0.02)
  assert counts["test"] / len(facts) == pytest.approx(0.15, abs=0.02)
  # By name alone: another value, document or seed moves no fact.
  for fact in facts[:50]:
    assert dataclasses.replace(fact, value="x").split == fact.split


def read(**fields):
  return {
    fact.relation: fact
    for fact in extract_facts(
      Document(title="Oz", text=text, uid=f"oz/{field.replace('_', '-')}")
      for field, text in fields.items()
    )
  }


def test_one_fact_under_two_names_is_told_once():
  office = "President Dorothy GALE (since 1 May 1900)"

  both = read(
    executive_branch=f"Executive branch.\nChief of state: {office}.\n"
    f"Head of government: {office}.",
    independence="Independence: 1 May 1900 (from Kansas).",
    national_holiday="National holiday: Independence Day, 1 May (1900).",
  )
  holiday = read(
    independence="Independence: 1 May 1900 (from Kansas).",
    national_holiday="National holiday: Emerald Day, 2 May (1900).",
  )

  assert set(both) == {"chief of state", "independence"}
  assert set(holiday) == {"independence", "national holiday"}


def test_a_border_is_one_fact_whichever_country_tells_it():
  lines = {
    "Oz": "Total: 9 km.\nBorder countries: Ev 4 km; Ix 5 km.",
    "Ev": "Total: 7 km.\nBorder countries: Oz 4 km; Ix 3 km.",
    "Ix": "Total: 8 km.\nBorder countries: Oz 5 km; Ev 3 km.",
    # Its one border is its whole land boundary.
    "Mo": "Total: 2 km.\nBorder countries: Ev 2 km.",
  }

  found = extract_facts(
    Document(
      title=country,
      text=f"Land boundaries.\n{text}",
      uid=f"{country.lower()}/land-boundaries",
    )
    for country, text in lines.items()
  )

  borders = [fact for fact in found if fact.relation == "border"]
  assert [(b.country, b.other, b.value) for b in borders] == [
    ("Oz", "Ev", "4 km"),
    ("Ev", "Ix", "3 km"),
    ("Ix", "Oz", "5 km"),
  ]


@pytest.mark.parametrize(
  ("field", "text"),
  [
    ("capital", "Capital.\nName: none."),
    ("capital", "Capital.\nName: A (summer); B (winter)."),
    ("capital", "Capital.\nName: Oz City."),
    ("coastline", "Coastline: 0 km (landlocked)."),
    ("elevation", "Elevation.\nHighest point: unnamed location 12 m."),
    ("airports", "Airports: NA."),
  ],
)
def test_what_is_no_plain_value_is_no_fact(field, text):
  assert set(read(**{field: text})) <= {"highest elevation"}
