# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.eval import report_examples


def test_a_sample_is_evenly_spaced_and_starts_with_the_first():
  assert report_examples.sample(range(10), 5) == [0, 2, 4, 6, 8]
  assert report_examples.sample(range(3), 5) == [0, 1, 2]


@pytest.mark.parametrize("start", [0, 100, 255, 500, 995])
def test_an_excerpt_holds_its_mark_whole_and_is_short(start):
  text = "".join(chr(0x4E00 + i) for i in range(1000))

  parts = report_examples.excerpt(text, start, start + 5)

  assert [p["text"] for p in parts if p["marked"]] == [text[start : start + 5]]
  shown = "".join(part["text"] for part in parts)
  assert shown.strip("… ") in text
  assert len(shown) < 300


def test_a_short_text_is_shown_whole():
  parts = report_examples.excerpt("capital: Rome.", 9, 13)
  assert [p["text"] for p in parts] == ["capital: ", "Rome", "."]


def test_the_answer_is_marked_in_candidates_without_regard_to_case():
  example = report_examples.masked_example(
    {
      "answer": "ROME",
      "passage_uid": "it",
      "candidates": [
        _candidate("fr", "capital: Paris", 0.2),
        _candidate("it", "capital: Rome", 0.8),
      ],
    }
  )

  first, second = example["candidates"]  # Likeliest first.
  assert first["is_gold"] and not second["is_gold"]
  assert {"text": "Rome", "marked": True} in first["parts"]
  assert not any(part["marked"] for part in second["parts"])


def test_lower_case_of_another_length_does_not_shift_the_mark():
  # "İ" has a lower case of two characters.
  example = report_examples.masked_example(
    {
      "answer": "Rome",
      "passage_uid": "",
      "candidates": [_candidate("it", "İİ Rome", 1.0)],
    }
  )
  (candidate,) = example["candidates"]
  assert candidate["parts"] == [{"text": "İİ Rome", "marked": False}]
  assert not candidate["is_gold"]


def _candidate(uid, text, prob):
  return {"uid": uid, "text": text, "retrieval_prob": prob}


def test_answers_are_shown_once_and_the_first_with_more_evidence():
  def evidence(text, start, end):
    return {
      "title": "Italy",
      "text": text,
      "start": start,
      "end": end,
      "retrieval_prob": 0.5,
    }

  example = report_examples.question_example(
    {
      "question": "Which is the capital?",
      "references": ["Rome", "Roma"],
      "exact_match": True,
      "answers": [
        {
          "text": "Rome",
          "probability": 0.9,
          "evidence": [evidence("Rome.", 0, 4), evidence("In Rome.", 3, 7)],
        },
        {
          "text": "Milan",
          "probability": 0.1,
          "evidence": [evidence("Milan", 0, 5), evidence("Milan", 0, 5)],
        },
      ],
    }
  )

  assert [row["text"] for row in example["rows"]] == ["Rome", "", "Milan"]
  assert [row["probability"] for row in example["rows"]] == [0.9, None, 0.1]
  assert example["wanted"] == "Rome / Roma"


def test_a_question_without_an_answer_is_shown_too():
  example = report_examples.question_example(
    {"question": "?", "references": ["a"], "answers": [], "exact_match": False}
  )
  assert example["prediction"] == "nothing" and example["rows"] == []
