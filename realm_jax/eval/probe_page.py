# SPDX-License-Identifier: Apache-2.0
"""A probed text as a page for people."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from realm_jax.eval.predictions import Candidate, SpanPrediction
from realm_jax.eval.report_examples import mark_answer

_MARGIN = 2


def show(probed: SpanPrediction, console: Console | None = None) -> None:
  """Prints a text, how likely its span is, and what it is filled in beside.

  Passages are shortened, and come by p(z|x) where there is one.
  """
  console = console or Console()
  # Text objects: what stands in brackets in a passage is no markup.
  console.print(
    Text.assemble(
      (probed.before, "bold"),
      (f"[[{probed.answer}]]", "bold green"),
      (probed.after, "bold"),
    )
  )
  for line in _summary(probed):
    console.print(Padding(Text(line), (0, 0, 0, _MARGIN), expand=False))
  if probed.candidates:
    _show_candidates(probed, console)
  console.print()


def _summary(probed: SpanPrediction) -> list[str]:
  found = {
    "p(y|x)": _prob(probed.answer_prob),
    "p(y|null,x)": _prob(probed.closed_book_answer_prob),
    "retrieval utility": _nats(probed.retrieval_utility, " nats"),
  }
  figures = [f"{name} {figure}" for name, figure in found.items() if figure]
  filled = {
    # Without p(y|x), it is what stands beside the null document.
    "filled in": None if probed.answer_prob is None else probed.prediction,
    "beside the null document": probed.closed_book_prediction,
  }
  said = [f"{where}: {text}" for where, text in filled.items() if text]
  return [", ".join(line) for line in (figures, said) if line]


def _show_candidates(probed: SpanPrediction, console: Console) -> None:
  """Prints a line of figures for each candidate, and its passage below."""
  candidates = sorted(
    probed.candidates, key=lambda c: -(c.retrieval_prob or 0.0)
  )
  columns = [
    ["p(z|x)", *(_prob(c.retrieval_prob) for c in candidates)],
    ["p(y|z,x)", *(_prob(c.answer_prob) for c in candidates)],
    ["utility", *(_nats(c.retrieval_utility) for c in candidates)],
  ]
  # A stage that has not a figure has not its column.
  columns = [column for column in columns if any(column[1:])]
  last = ["filled in", *(c.prediction or "" for c in candidates)]
  if not any(last[1:]):
    last = [""] * len(last)
  passages = [None, *(_passage(c, probed.answer) for c in candidates)]
  for *figures, filled, passage in zip(*columns, last, passages, strict=True):
    cells = [figure.rjust(10) for figure in figures]
    line = "".join(cells) + f"  {filled}".rstrip()
    console.print(Text(line) if passage else Text(f"\n{line}", "italic"))
    if passage:
      console.print(Padding(passage, (0, 0, 0, 2 * _MARGIN), expand=False))


def _passage(candidate: Candidate, answer: str) -> Text:
  if candidate.is_null:
    return Text("the null document", "italic")
  name = f"{candidate.title} [{candidate.uid}]: ".lstrip()
  parts = mark_answer(" ".join(candidate.text.split()), answer)
  marked = [(p["text"], "bold" if p["marked"] else "dim") for p in parts]
  return Text.assemble(name, *marked)


def _prob(value: float | None) -> str:
  return "" if value is None else f"{value:.3g}"


def _nats(value: float | None, unit: str = "") -> str:
  return "" if value is None else f"{value:+.2f}{unit}"
