# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from realm_jax.eval.evaluate import evaluate
from realm_jax.eval.report import write_report


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_questions_give_predictions_figures_and_a_table(
  tmp_path, workdirs, data_dir, capsys
):
  data = str(data_dir / "questions.jsonl")

  figures = evaluate(workdirs["openqa"], data, str(tmp_path / "out"))

  assert json.loads((tmp_path / "out" / "figures.json").read_text()) == figures
  assert (figures["stage"], figures["data"]) == ("openqa", data)
  predictions = _lines(tmp_path / "out" / "predictions.jsonl")
  assert len(predictions) == figures["num_examples"] == 10
  assert predictions[0]["question"] == "Which is the capital of Chad?"
  evidence = predictions[0]["answers"][0]["evidence"][0]
  span = evidence["text"][evidence["start"] : evidence["end"]]
  assert span == predictions[0]["answers"][0]["text"]
  printed = capsys.readouterr().out
  for words in ("exact match", "F1", "recall@1, passage", "recall@5, answer"):
    assert words in printed
  assert f"{figures['f1']:.3f}" in printed


def test_masked_texts_of_a_realm_run_fill_the_report(
  workdirs, data_dir, capsys
):
  output = f"{workdirs['realm']}/evaluation"
  data = str(data_dir / "texts.jsonl")
  figures = evaluate(workdirs["realm"], data, output, limit=4)

  page = write_report(workdirs["realm"]).read_text()

  assert "4 of 4, evenly spaced" in page
  assert page.count("null document</b></td>") == 4
  assert "span exact match, open book" in capsys.readouterr().out
  assert figures["index_version"].startswith("00000007-")


def test_an_ict_run_has_recall_and_predicts_nothing(
  tmp_path, workdirs, data_dir
):
  data = str(data_dir / "texts.jsonl")
  figures = evaluate(workdirs["ict"], data, str(tmp_path / "out"))
  assert figures["num_examples"] == 10
  assert 0.0 <= figures["passage_recall_at_5"] <= 1.0
  assert _lines(tmp_path / "out" / "predictions.jsonl") == []


def test_a_bad_line_leaves_no_figures(tmp_path, workdirs, write_lines):
  line = {"question": "Who?", "answers": "me"}
  path = write_lines(tmp_path / "q.jsonl", [line])
  with pytest.raises(ValueError, match=r"q\.jsonl:1: 'answers'"):
    evaluate(workdirs["openqa"], path, str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def test_an_absent_step_is_named(tmp_path, workdirs, data_dir):
  data = str(data_dir / "texts.jsonl")
  with pytest.raises(FileNotFoundError, match="5"):
    evaluate(workdirs["realm"], data, str(tmp_path / "out"), step=5)
