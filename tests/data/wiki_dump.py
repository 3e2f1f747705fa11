# SPDX-License-Identifier: Apache-2.0
"""Made-up MediaWiki dumps."""

import bz2
import gzip
import pathlib
from xml.sax.saxutils import escape

_HEAD = (
  '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en">'
  "\n  <siteinfo>\n    <sitename>Wikipedia</sitename>\n  </siteinfo>\n"
)


def page(number: int, title: str, text: str, *, ns=0, redirect="") -> str:
  moved = f'    <redirect title="{escape(redirect)}" />\n' if redirect else ""
  return (
    f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{ns}</ns>\n"
    f"    <id>{number}</id>\n{moved}    <revision>\n      <id>7</id>\n"
    f'      <text bytes="9" xml:space="preserve">{escape(text)}</text>\n'
    "    </revision>\n  </page>\n"
  )


def write_dump(path: pathlib.Path, pages: list[str], streams: int = 1) -> None:
  """Writes pages; a .bz2 of several streams has some of them in each."""
  size = -(-len(pages) // streams)
  cut = ["".join(pages[i : i + size]) for i in range(0, len(pages), size)]
  parts = [part.encode() for part in [_HEAD, *cut, "</mediawiki>\n"]]
  if path.name.endswith(".bz2"):
    path.write_bytes(b"".join(bz2.compress(part) for part in parts))
  elif path.name.endswith(".gz"):
    path.write_bytes(gzip.compress(b"".join(parts)))
  else:
    path.write_bytes(b"".join(parts))
