# SPDX-License-Identifier: Apache-2.0
"""Articles of a MediaWiki XML dump, filtered as for ORQA, as plain text.

Dropped are redirects, pages outside the main namespace, disambiguation pages,
and lists, indexes and outlines by their titles; of an article all but running
text: templates, tables, lists, headings, references and captions.
"""

import bz2
from collections.abc import Iterator
import gzip
import io
import pathlib
import re
from typing import Any, NamedTuple
import xml.etree.ElementTree as ET

from realm_jax.data.records import Document
from realm_jax.mirror import local_file

_BLOCK_BYTES = 1 << 20
# MediaWiki allows 2 MiB a page; a crafted file must not fill the memory.
_MAX_PAGE_BYTES = 1 << 26
_OPEN, _CLOSE = b"<page>", b"</page>"
_TITLE = re.compile(
  r"(?:List|Lists|Index|Outline) of |.*\(disambiguation\)", re.IGNORECASE
)
_DISAMBIGUATION = re.compile(
  r"\{\{\s*(?:disamb|dab\s*[|}]|hndis|geodis|[^{}|\n]{1,60}disambiguation\s*[|}])"
  r"|__DISAMBIG__",
  re.IGNORECASE,
)
# What links of these namespaces show is no text of the article.
_MEDIA = re.compile(
  r"\s*(?:(?i:file|image|media|category)|[a-z]{2,3}(?:-[a-z]+)*)\s*:"
)
_DROPPED_TAGS = frozenset(
  (
    *("ref", "references", "table", "gallery", "math", "chem", "timeline"),
    *("score", "code", "pre", "syntaxhighlight", "source", "imagemap"),
    *("hiero", "style"),
  )
)
_LIST_TAGS = frozenset(("li", "dt", "dd"))
_DROP_LINE = "\0"  # Starts a line that is no running text.
# Templates that stand for words, and which of their arguments those are.
_WORDS = {"lang": 2, "nowrap": 1, "nobr": 1, "transl": 2, "transliteration": 2}
_DASHES = frozenset(("snd", "spnd", "spaced ndash", "ndash", "\u2013"))
# What stays of brackets whose content was a template.
_EMPTY = re.compile(r"\s*\(\s*[,;:]*\s*\)|(?<=\()\s*[,;]\s*")
# Switches of the page, and what makes words bold or italic.
_MARKS = re.compile(r"__[A-Z]+__|'{2,}")


class RawPage(NamedTuple):
  """A page as the dump has it, not parsed yet."""

  xml: bytes  # <page> ... </page>
  origin: str  # File and number, for error messages.


def read_pages(path: str) -> Iterator[RawPage]:
  """Yields the pages that may be articles, one at a time in memory.

  Args:
    path: .xml, .xml.gz or .xml.bz2, of one stream or many.

  Raises:
    OSError: the file cannot be opened, or is broken.
    ValueError: it ends inside a page, or a page is larger than MediaWiki
      allows.
  """
  with local_file(path) as local, _open(local) as file:
    for number, page in enumerate(_split(file, path)):
      # A page that moved, or is no article: not worth handing on.
      head = page[:2048]
      if b"<ns>0</ns>" in head and b"<redirect " not in head:
        yield RawPage(page, f"{path}: page {number}")


def _open(path: pathlib.Path) -> io.BufferedIOBase:
  if path.suffix == ".bz2":
    return bz2.BZ2File(path)
  if path.suffix == ".gz":
    return gzip.GzipFile(path)
  return path.open("rb")


def _split(file: io.BufferedIOBase, path: str) -> Iterator[bytes]:
  # Text in XML has its angle brackets escaped, so these are always tags.
  data, at = b"", 0
  while True:
    end = data.find(_CLOSE, at)
    if end >= 0:
      end += len(_CLOSE)
      yield data[data.find(_OPEN, at, end) : end]
      at = end
      continue
    data, at = data[at:], 0
    if len(data) > _MAX_PAGE_BYTES:
      raise ValueError(
        f"{path}: a page of more than {_MAX_PAGE_BYTES:,} bytes, which "
        "MediaWiki does not write."
      )
    try:
      more = file.read(_BLOCK_BYTES)
    except EOFError as error:
      raise ValueError(f"{path}: cut short: {error}") from error
    if not more:
      break
    data += more
  if _OPEN in data:
    raise ValueError(f"{path}: it ends inside a page, so it was cut short.")


def to_document(page: RawPage) -> Document | None:
  """Returns a page as plain text, or None if it is no article.

  Raises:
    ValueError: it is not what MediaWiki writes, or mwparserfromhell is not
      installed.
  """
  try:
    found = ET.fromstring(page.xml)
  except ET.ParseError as error:
    raise ValueError(f"{page.origin}: no page of a dump: {error}") from error
  title, markup = found.findtext("title"), found.findtext("revision/text")
  number = found.findtext("id")
  if not title or not number:
    raise ValueError(f"{page.origin}: a page without title or id.")
  is_article = (
    found.findtext("ns") == "0"
    and found.find("redirect") is None
    and is_article_title(title)
  )
  if not is_article or not markup or _DISAMBIGUATION.search(markup):
    return None
  return Document(
    title=title,
    text=plain_text(markup),
    uid=number,
    origin=f"{page.origin}, {title!r}",
  )


def is_article_title(title: str) -> bool:
  """Returns whether a title is none of a list, index, outline or choice."""
  return not _TITLE.match(title)


def read_dump(path: str) -> Iterator[Document]:
  """Yields the articles of a dump; `read_pages` has the arguments."""
  for page in read_pages(path):
    if (document := to_document(page)) is not None:
      yield document


def plain_text(markup: str) -> str:
  """Returns the running text of an article, a paragraph a line.

  Raises:
    ValueError: mwparserfromhell is not installed.
  """
  parser = _parser()
  try:
    # Of quotation marks: unpaired ones would have the parser try for long.
    code = parser.parse(markup, skip_style_tags=True)
  except parser.parser.ParserError:
    return ""  # Counted as a document without text.
  lines = "".join(_words(code, parser.nodes)).split("\n")
  kept = (line for line in lines if _DROP_LINE not in line)
  cleaned = (
    " ".join(_EMPTY.sub("", _MARKS.sub("", line)).split()) for line in kept
  )
  return "\n".join(line for line in cleaned if line)


def _parser() -> Any:
  try:
    import mwparserfromhell
  except ImportError as error:
    raise ValueError(
      "Reading a MediaWiki dump needs mwparserfromhell, which is not "
      "installed: pip install 'realm-jax[wiki]'."
    ) from error
  return mwparserfromhell


def _words(code: Any, nodes: Any) -> Iterator[str]:
  """Yields the text that a reader of the page sees in its paragraphs."""
  for node in code.nodes:
    if isinstance(node, nodes.Text):
      yield node.value
    elif isinstance(node, nodes.Wikilink):
      title = str(node.title)
      if not _MEDIA.match(title):
        shown = node.text if node.text is not None else node.title
        yield from _words(shown, nodes)
    elif isinstance(node, nodes.ExternalLink):
      if node.title is not None:
        yield from _words(node.title, nodes)
    elif isinstance(node, nodes.Heading):
      yield _DROP_LINE
    elif isinstance(node, nodes.HTMLEntity):
      yield node.normalize()
    elif isinstance(node, nodes.Template):
      yield from _template_words(node, nodes)
    elif isinstance(node, nodes.Tag):
      yield from _tag_words(node, nodes)


def _tag_words(node: Any, nodes: Any) -> Iterator[str]:
  tag = str(node.tag).strip().lower()
  if tag in _LIST_TAGS and node.wiki_markup:
    yield _DROP_LINE
  elif tag == "br":
    yield " "
  elif tag not in _DROPPED_TAGS and node.contents is not None:
    yield from _words(node.contents, nodes)


def _template_words(node: Any, nodes: Any) -> Iterator[str]:
  name = " ".join(str(node.name).split()).lower()
  if name in _DASHES:
    yield " \u2013 "
  elif name == "convert" and node.has(1) and node.has(2):
    yield f"{node.get(1).value} {node.get(2).value}"
  elif name in _WORDS and node.has(_WORDS[name]):
    yield from _words(node.get(_WORDS[name]).value, nodes)
