# SPDX-License-Identifier: Apache-2.0
import dataclasses

from etils import epath
import numpy as np
import pytest

from realm_jax.eval import questions
from realm_jax.eval.differences import differences
from realm_jax.eval.figures import summarise
from realm_jax.eval.predictions import QuestionPrediction, write_evaluation

_LINE = QuestionPrediction(
  question="?",
  references=("Rome",),
  answers=(),
  exact_match=False,
  f1=0.0,
  regex_search=None,
  oracle_exact_match=False,
  passage_uid="it",
  answer_rank=None,
  passage_rank=None,
)


def _write(path, lines, names=("exact_match",)):
  """Writes lines, with figures that only say which there are."""
  lines = [
    dataclasses.replace(_LINE, question=str(number), **line)
    for number, line in enumerate(lines)
  ]
  figures = summarise({name: np.ones(1) for name in names})
  write_evaluation(epath.Path(path), figures, lines)
  return epath.Path(path)


@pytest.mark.parametrize("stage", ["openqa", "realm"])
def test_means_differ_as_the_figures_of_both_evaluations(
  workdirs, data_dir, tmp_path, stage
):
  paths, figures = [], []
  for retriever in ("", "bm25"):
    found, lines = questions.evaluate_questions(
      workdirs[stage],
      str(data_dir / "questions.jsonl"),
      corpus="",
      step=0,
      limit=0,
      retriever=retriever,
    )
    paths.append(epath.Path(tmp_path / f"with{retriever}.jsonl"))
    write_evaluation(paths[-1], found, lines)
    figures.append(found)
  found = differences(*paths)
  intervals = found.pop("intervals")
  assert found == {
    name: pytest.approx(figures[0][name] - figures[1][name], abs=1e-12)
    for name in figures[0]["intervals"]
    if name != "reader_oracle"  # Which no line tells.
  }
  assert {"passage_recall_at_5", "answer_recall_at_1"} <= found.keys()
  assert ("exact_match" in found) == (stage == "openqa")
  assert any(found.values())
  for name, (low, high) in intervals.items():
    assert low - 1e-12 <= found[name] <= high + 1e-12


def test_questions_that_do_not_count_in_a_figure_do_not_in_its_difference(
  tmp_path,
):
  names = ("f1", "regex_search", "answer_recall_at_5", "passage_recall_at_5")
  pattern = {"f1": None, "regex_search": True, "passage_uid": ""}
  ours = _write(
    tmp_path / "ours",
    [{"f1": 0.75, "passage_rank": 5, "answer_rank": 6}, pattern],
    names,
  )
  theirs = _write(
    tmp_path / "theirs",
    [{"f1": 0.5, "passage_rank": 6, "answer_rank": 2}, pattern],
    (*names, "exact_match"),
  )
  found = differences(ours, theirs)
  found.pop("intervals")
  assert found == {
    "f1": 0.25,
    "regex_search": 0.0,
    "answer_recall_at_5": -0.5,
    "passage_recall_at_5": 1.0,
  }


def test_a_small_gain_on_the_same_questions_is_told_from_chance(tmp_path):
  right = [{"exact_match": number % 2 == 0} for number in range(400)]
  theirs = _write(tmp_path / "theirs", right)
  for number in range(1, 40, 2):
    right[number] = {"exact_match": True}
  ours = _write(tmp_path / "ours", right)
  found = differences(ours, theirs)
  low, high = found["intervals"]["exact_match"]
  assert found["exact_match"] == 0.05
  # 400 questions of which 20 changed: a deviation of 0.011.
  assert 0.02 < low < 0.04 and 0.06 < high < 0.08
  assert differences(ours, ours)["intervals"] == {"exact_match": [0.0, 0.0]}


def test_compressed_lines_are_compared_with_plain_ones(tmp_path):
  plain = _write(tmp_path / "plain.jsonl", [{"exact_match": True}, {}])
  packed = _write(tmp_path / "packed.jsonl.gz", [{}, {}])
  assert packed.read_bytes()[:2] == b"\x1f\x8b"
  assert (tmp_path / "packed.figures.json").exists()
  assert differences(plain, packed)["exact_match"] == 0.5


def test_other_questions_are_refused(tmp_path):
  ours, theirs = (
    _write(tmp_path / str(number), [{}] * number) for number in (3, 2)
  )
  with pytest.raises(ValueError, match=r"same questions \(3 and 2\)"):
    differences(ours, theirs)
