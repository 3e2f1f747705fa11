# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/data/wiki.py."""

import pytest

from realm_jax.data import wiki
from realm_jax.data.sources import read_documents
from tests.data.wiki_dump import page, write_dump

pytest.importorskip("mwparserfromhell")

_TEXT = {
  # Links, emphasis, entities.
  "'''Ana''' of [[Paris]] and [[Lyon|the ''south'']].": (
    "Ana of Paris and the south."
  ),
  "A [http://a.b site], http://c.d &amp; &eacute;&nbsp;b": "A site, & é b",
  "[[:Category:X|See]] it. [[Category:Y]] [[de:Anna]]": "See it.",
  "[[Who: a novel]] fell.": "Who: a novel fell.",
  # What is no running text.
  "[[File:a.png|thumb|A [[map]] of ''it'']]It rose.": "It rose.",
  "It rose.<ref name=a>{{cite|x}}</ref><ref name=a /> Then fell.": (
    "It rose. Then fell."
  ),
  "{{Infobox\n| a = b\n}}\nIt rose.": "It rose.",
  "It {{citation needed|date=May}}rose.": "It rose.",
  "{| class=x\n! a\n|-\n| b\n|}\nIt rose.": "It rose.",
  "One.\n\n== Head ==\n* a list\n# numbers\n; term : meaning\n:: far\nTwo.": (
    "One.\nTwo."
  ),
  "It <!-- not --> rose.__NOTOC__": "It rose.",
  "Let <math>x^2</math> be.<gallery>\na.png|b\n</gallery>": "Let be.",
  # Templates that stand for words.
  "It is {{convert|10|km|mi}} to {{lang|fr|la [[mer]]}}.": (
    "It is 10 km to la mer."
  ),
  "1914{{snd}}18, {{nowrap|a b}}": "1914 \u2013 18, a b",
  # Brackets that are left empty.
  "Rome ({{IPA|r}}) fell ({{lang-it|Roma}}; 1 May).": "Rome fell (1 May).",
  "A<br />B": "A B",
  "": "",
}


@pytest.mark.parametrize("markup", _TEXT)
def test_running_text_is_left(markup):
  assert wiki.plain_text(markup) == _TEXT[markup]


_PAGES = [
  page(1, "Ana & Bo", "'''Ana''' < Bo.\n\n[[Paris]] is <b>far</b>."),
  page(2, "Talk:Ana", "Talk.", ns=1),
  page(3, "Anna", "#REDIRECT [[Ana]]", redirect="Ana"),
  page(4, "List of Anas", "* Ana"),
  page(5, "Index of Ana articles", "A."),
  page(6, "Outline of Ana", "A."),
  page(7, "Ana (disambiguation)", "A."),
  page(8, "Bo", "'''Bo''' may be:\n{{disambiguation}}"),
  page(9, "Cy", "'''Cy''' may be.\n{{Human name disambiguation|x}}"),
  page(10, "Listening", "It rose."),
  page(11, "Empty", ""),
]


@pytest.mark.parametrize(
  ("name", "streams"),
  [("d.xml", 1), ("d.xml.gz", 1), ("d.xml.bz2", 1), ("d.xml.bz2", 4)],
)
def test_articles_come_as_documents(tmp_path, name, streams):
  write_dump(tmp_path / name, _PAGES, streams)
  found = list(read_documents(str(tmp_path / name)))
  assert [(d.uid, d.title, d.text) for d in found] == [
    ("1", "Ana & Bo", "Ana < Bo.\nParis is far."),
    ("10", "Listening", "It rose."),
  ]
  assert found[0].origin == f"{tmp_path / name}: page 0, 'Ana & Bo'"


@pytest.mark.parametrize("block", [1, 7, 64])
def test_pages_are_found_wherever_blocks_end(tmp_path, monkeypatch, block):
  write_dump(tmp_path / "d.xml", _PAGES)
  whole = [p.xml for p in wiki.read_pages(str(tmp_path / "d.xml"))]
  monkeypatch.setattr(wiki, "_BLOCK_BYTES", block)
  assert [p.xml for p in wiki.read_pages(str(tmp_path / "d.xml"))] == whole


@pytest.mark.parametrize("name", ["d.xml", "d.xml.bz2", "d.xml.gz"])
def test_a_dump_cut_short_is_noticed(tmp_path, name):
  write_dump(tmp_path / name, _PAGES)
  data = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
  with pytest.raises(ValueError, match=r"d\.xml.*cut short"):
    list(wiki.read_pages(str(tmp_path / name)))


def test_a_page_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(wiki, "_MAX_PAGE_BYTES", 1000)
  monkeypatch.setattr(wiki, "_BLOCK_BYTES", 100)
  (tmp_path / "d.xml").write_text("<page>" + "x" * 5000)
  with pytest.raises(ValueError, match="more than 1,000 bytes"):
    list(wiki.read_pages(str(tmp_path / "d.xml")))


@pytest.mark.parametrize(
  ("xml", "message"),
  [
    (b"<page><ns>0</ns><title>A</page>", "no page of a dump"),
    (b"<page><ns>0</ns></page>", "without title or id"),
    # Entities are not expanded, let alone of files.
    (b"<page><ns>0</ns><title>&x;</title></page>", "no page of a dump"),
  ],
)
def test_what_is_no_page_is_refused(xml, message):
  with pytest.raises(ValueError, match=f"x: {message}|x: a page {message}"):
    wiki.to_document(wiki.RawPage(xml, "x"))
