# SPDX-License-Identifier: Apache-2.0
"""What readers yield and stores return."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
  """A text to make passages of, as a source reads it."""

  title: str
  text: str
  uid: str = ""  # "": made from title and text.
  origin: str = ""  # File and line, for error messages.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
  """A row of a corpus."""

  uid: str
  title: str
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedText:
  """A text with the spans that may be masked in it."""

  text: str
  spans: tuple[tuple[int, int], ...]  # (start, end) in characters.
  # Of which one is asked about, chosen by its span; () for the whole text.
  sentences: tuple[tuple[int, int], ...] = ()
  source_uid: str = ""  # The passage it was taken from; excluded.
  passage_uid: str = ""  # The passage that should be found.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """A question with its accepted answers: strings, or patterns."""

  text: str
  answers: tuple[str, ...] = ()
  patterns: tuple[str, ...] = ()  # Regular expressions that compile.
  passage_uid: str = ""  # The passage that should be found.
