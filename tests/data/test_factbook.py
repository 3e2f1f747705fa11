# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from realm_jax.data.factbook import plain_text, read_factbook, slug


@pytest.fixture(scope="module")
def documents():
  return {document.uid: document for document in read_factbook()}


def test_every_country_and_field_is_one_document(documents):
  uids = [document.uid for document in read_factbook()]

  assert len(uids) == len(set(uids)) == len(documents)
  assert len(documents) > 30_000
  assert len({document.title for document in documents.values()}) == 256
  assert sum(len(d.text.split()) for d in documents.values()) > 650_000


def test_some_fields_alone_are_the_same_documents(documents):
  found = list(read_factbook({"Capital", "Area"}))

  assert {document.uid.partition("/")[2] for document in found} == {
    "capital",
    "area",
  }
  assert all(documents[document.uid] == document for document in found)


def test_documents_start_with_their_field_and_hold_plain_text(documents):
  for uid, document in documents.items():
    assert uid == f"{slug(document.title)}/{uid.partition('/')[2]}"
    assert slug(document.text).startswith(uid.partition("/")[2])
    assert not re.search(r"</?[a-zA-Z]+[ >/]|&[a-z]+;|  |\n\n", document.text)


def test_a_field_in_parts_has_a_line_for_each(documents):
  assert documents["france/capital"].text.startswith(
    "Capital.\nName: Paris.\nGeographic coordinates: 48 52 N, 2 20 E.\n"
  )
  assert documents["france/coastline"].text.startswith("Coastline: ")
  # The label "agricultural land: arable land" is not said twice.
  assert "Agricultural land: 31.4%" not in documents["france/land-use"].text
  assert "arable land: arable land" not in documents["france/land-use"].text


@pytest.mark.parametrize(
  ("uid", "title"),
  [
    ("united-states/area", "United States"),
    ("cote-d-ivoire/area", "Côte d'Ivoire"),
    ("dominican-republic/area", "Dominican Republic"),
    ("federated-states-of-micronesia/area", "Federated States of Micronesia"),
    ("gaza/area", "Gaza"),
    ("world/area", "World"),
  ],
)
def test_titles_are_the_names_that_people_use(documents, uid, title):
  assert documents[uid].title == title


@pytest.mark.parametrize(
  ("markup", "text"),
  [
    ("<strong>note:</strong> a&nbsp; b", "note: a b"),
    ("Caf&eacute; &amp; bar", "Café & bar"),
    ("one <br>two<br /><br>three", "one; two; three"),
    ("one.<br>two;<p>three</p>", "one. two; three"),
    ("<br>less than <1% or &lt;1%", "less than <1% or <1%"),
  ],
)
def test_markup_becomes_plain_text(markup, text):
  assert plain_text(markup) == text
