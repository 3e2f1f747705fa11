# SPDX-License-Identifier: Apache-2.0
"""Predictions as the report's template wants them: cut, marked and sampled."""

from collections.abc import Sequence
from typing import Any

_EXCERPT = 260  # Characters of a passage that are shown.
_EVIDENCE = 3  # Passages shown of the first answer.
_ANSWERS = 3


def sample(predictions: Sequence[Any], number: int) -> list[Any]:
  """Evenly spaced members: nobody chose them for being right or wrong."""
  number = min(number, len(predictions))
  return [predictions[i * len(predictions) // number] for i in range(number)]


def excerpt(text: str, start: int, end: int) -> list[dict[str, Any]]:
  """The text in parts around a marked [start, end), cut to a readable length.

  A mark further in than the cut moves the excerpt to it.
  """
  first = 0 if end <= _EXCERPT else max(0, start - _EXCERPT // 2)
  last = max(end, min(len(text), first + _EXCERPT))
  parts = [
    {"text": ("… " if first else "") + text[first:start], "marked": False},
    {"text": text[start:end], "marked": True},
    {
      "text": text[end:last] + (" …" if last < len(text) else ""),
      "marked": False,
    },
  ]
  return [part for part in parts if part["text"]]


def masked_example(prediction: dict[str, Any]) -> dict[str, Any]:
  """A `SpanPrediction` with its candidates, likeliest first."""
  answer = prediction["answer"]
  candidates = sorted(
    prediction["candidates"], key=lambda c: -c["retrieval_prob"]
  )
  return prediction | {
    "candidates": [
      candidate
      | {
        "parts": mark_answer(candidate["text"], answer),
        "is_gold": bool(prediction["passage_uid"])
        and candidate["uid"] == prediction["passage_uid"],
      }
      for candidate in candidates
    ],
  }


def mark_answer(text: str, answer: str) -> list[dict[str, Any]]:
  """Does `excerpt` around the first mention of an answer, if there is one."""
  at = text.lower().find(answer.lower())
  # Lower case can be longer ("İ"): then there is no telling where it was.
  if at < 0 or len(text.lower()) != len(text):
    return excerpt(text, 0, 0)
  return excerpt(text, at, at + len(answer))


def retrieval_example(prediction: dict[str, Any]) -> dict[str, Any]:
  """A `RetrievalPrediction` with the answer marked where a passage holds it."""
  wanted = prediction["references"]
  return prediction | {
    "wanted": " / ".join(wanted),
    "passages": [
      passage
      | {"parts": _mark_first(passage["text"], wanted, passage["holds_answer"])}
      for passage in prediction["passages"]
    ],
  }


def _mark_first(
  text: str, answers: Sequence[str], holds: bool
) -> list[dict[str, Any]]:
  """Marks the first of the answers that stands in a text that holds one."""
  marked = (mark_answer(text, answer) for answer in answers if holds)
  return next(
    (parts for parts in marked if any(part["marked"] for part in parts)),
    excerpt(text, 0, 0),
  )


def question_example(prediction: dict[str, Any]) -> dict[str, Any]:
  """A `QuestionPrediction` with its first answers and their evidence."""
  answers = prediction["answers"][:_ANSWERS]
  rows = [
    _evidence_row(answer, evidence, shows_answer=j == 0)
    for i, answer in enumerate(answers)
    for j, evidence in enumerate(answer["evidence"][: 1 if i else _EVIDENCE])
  ]
  return {
    "question": prediction["question"],
    "prediction": answers[0]["text"] if answers else "nothing",
    "right": prediction["exact_match"],
    "wanted": " / ".join(prediction["references"]),
    "rows": rows,
  }


def _evidence_row(
  answer: dict[str, Any], evidence: dict[str, Any], *, shows_answer: bool
) -> dict[str, Any]:
  return {
    "text": answer["text"] if shows_answer else "",
    "probability": answer["probability"] if shows_answer else None,
    "title": evidence["title"],
    "parts": excerpt(evidence["text"], evidence["start"], evidence["end"]),
    "retrieval_prob": evidence["retrieval_prob"],
  }
