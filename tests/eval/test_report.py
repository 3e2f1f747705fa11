# SPDX-License-Identifier: Apache-2.0
import base64
import html.parser
import json

from etils import epath
import numpy as np
import pytest

from realm_jax import config
from realm_jax.checkpoints import CheckpointWriter, RunPosition
from realm_jax.eval import predictions, report
from realm_jax.eval.predictions import (
  Answer,
  Candidate,
  Evidence,
  QuestionPrediction,
  SpanPrediction,
)

_HOSTILE = "<script>alert(1)</script>"


def _workdir(tmp_path, stage="realm", checkpoint=0):
  root = epath.Path(tmp_path / "run")
  root.mkdir()
  run = config.RunConfig(stage=stage, num_steps=100)
  (root / "config.json").write_text(config.dumps(run))
  if checkpoint:
    with CheckpointWriter(root, keep=1) as writer:
      state = {"params": {"encoder": np.zeros(1)}}
      writer.save(checkpoint, state, RunPosition(data_state={}))
  return root


def _log(root, lines, end=""):
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (root / "metrics.jsonl").write_text(text + end)


def _candidate(uid, text, retrieval_prob):
  return Candidate(
    uid=uid,
    title="Italy",
    text=text,
    is_null=not uid,
    retrieval_prob=retrieval_prob,
    answer_prob=0.75,
    prediction="rome",
  )


def _span_prediction(before):
  return SpanPrediction(
    before=before,
    answer="Rome",
    after=".",
    prediction="rome",
    right=True,
    closed_book_prediction="paris",
    closed_book_right=False,
    retrieval_utility=12.34,
    passage_uid="it",
    candidates=(
      _candidate("", "", 0.001),
      _candidate("it", f"{_HOSTILE} capital: Rome", 0.999),
    ),
  )


def _question_prediction():
  evidence = Evidence(
    uid="it",
    title=_HOSTILE,
    text="capital: Rome",
    start=9,
    end=13,
    retrieval_prob=0.8,
    span_score=3.0,
  )
  answer = Answer(text="Rome", score=3.0, probability=0.6, evidence=(evidence,))
  return QuestionPrediction(
    question=f"Which is the capital? {_HOSTILE}",
    references=("Roma",),
    answers=(answer,),
    exact_match=False,
    f1=0.0,
    regex_search=None,
    oracle_exact_match=False,
    passage_uid="it",
    answer_rank=None,
    passage_rank=1,
  )


class _Outline(html.parser.HTMLParser):
  """Collects tags and images, and checks that tags nest."""

  VOID = frozenset({"meta", "img", "col"})

  def __init__(self):
    super().__init__()
    self.stack, self.tags, self.images = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    if tag == "img":
      self.images.append(dict(attrs))
    if tag not in self.VOID:
      self.stack.append(tag)

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag


def _outline(path):
  outline = _Outline()
  outline.feed(path.read_text())
  assert outline.stack == []
  return outline


def test_a_workdir_without_metrics_gives_a_page_that_says_so(tmp_path):
  path = report.write_report(str(_workdir(tmp_path)))
  page = path.read_text()
  assert "No metrics yet" in page and "no validation data" in page
  assert _outline(path).images == []


def test_the_page_carries_its_plots_and_they_lie_beside_it(tmp_path):
  root = _workdir(tmp_path)
  steps = range(10, 60, 10)
  _log(
    root,
    [{"step": s, "loss": 9 / s, "retrieval/wait_seconds": 0.1} for s in steps],
  )

  path = report.write_report(str(root))

  images = _outline(path).images
  assert [image["alt"] for image in images] == [
    "Training loss",
    "Wait for retrieval",
  ]
  embedded = images[0]["src"].removeprefix("data:image/png;base64,")
  assert base64.b64decode(embedded) == (path.parent / "loss.png").read_bytes()
  assert "50 of 100, not finished" in path.read_text()


def test_a_killed_runs_metrics_are_drawn_and_malformed_ones_named(tmp_path):
  root = _workdir(tmp_path)
  _log(root, [{"step": 1, "loss": 2.0}], end='{"step": 2, "los')
  assert len(_outline(report.write_report(str(root))).images) == 1

  _log(root, [{"step": 1, "loss": 2.0}, {"loss": 2.0}, {"step": 3}])
  with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
    report.write_report(str(root))


def test_swaps_are_listed_with_what_was_logged_of_them(tmp_path):
  root = _workdir(tmp_path)
  swap = {
    "step": 71,
    "swap/first_step": 70,
    "swap/checkpoint_step": 50,
    "swap/stall_seconds": 0.0125,
  }
  probe = {"step": 91, "swap/first_step": 90, "probe/recall_at_5": 0.875}
  _log(root, [{"step": 50, "loss": 1.0}, swap, probe])

  page = report.write_report(str(root)).read_text()

  assert "step held up, ms" in page and '<td class="n">12.5</td>' in page
  assert '<td class="n">0.875</td>' in page
  assert "seconds stale" not in page


@pytest.mark.parametrize(
  ("stage", "refresh", "expected"),
  [
    ("realm", {"policy": "never"}, "never"),
    ("realm", {"every_steps": 5000}, "async, every 5,000 steps"),
    (
      "openqa",
      {"policy": "lockstep", "steps": (10, 40), "lag_steps": 5},
      "lockstep, at steps 10, 40",
    ),
    (
      "openqa",
      {"max_staleness_steps": 700},
      "async, every 500 steps, at most 700 steps old",
    ),
  ],
)
def test_the_page_says_how_the_index_is_refreshed(
  tmp_path, stage, refresh, expected
):
  run = config.RunConfig(
    stage=stage, num_steps=100, refresh=config.RefreshConfig(**refresh)
  )
  (tmp_path / "config.json").write_text(config.dumps(run))
  page = report.write_report(str(tmp_path)).read_text()
  assert f"<dt>Refresh</dt><dd>{expected}</dd>" in page


def test_staleness_null_mass_and_entropy_are_drawn(tmp_path):
  root = _workdir(tmp_path)
  line = {
    "retrieval/null_mass": 0.2,
    "retrieval/entropy": 1.0,
    "index/staleness_steps": 3,
  }
  swap = {
    "swap/first_step": 20,
    "swap/checkpoint_step": 10,
    "swap/overlap_at_k": 0.75,
  }
  _log(root, [{"step": 10, **line}, {"step": 21, **swap}, {"step": 30, **line}])

  path = report.write_report(str(root))

  drawn = {png.name for png in path.parent.glob("*.png")}
  assert drawn == {
    "null_mass.png",
    "entropy.png",
    "overlap.png",
    "staleness.png",
  }
  assert '<td class="n">75%</td>' in path.read_text()


def test_masked_examples_show_candidates_and_nothing_is_html(tmp_path):
  root = _workdir(tmp_path, checkpoint=7)
  figures = {"step": 7, "data": "held_out.jsonl", "open_book_exact_match": 0.9}
  made = [_span_prediction(f"Capital {i} {_HOSTILE}: ") for i in range(40)]
  predictions.write_evaluation(root / predictions.PREDICTIONS, figures, made)

  path = report.write_report(str(root))

  page = path.read_text()
  assert "12 of 40, evenly spaced" in page
  assert "held_out.jsonl, checkpoint 7" in page
  assert "12.3 nats" in page and "null document" in page
  assert '<b class="wrong">paris</b>' in page
  assert "<mark>Rome</mark>" in page
  outline = _outline(path)
  assert "script" not in outline.tags
  assert outline.tags.count("section") == 12


def test_questions_show_answers_and_marked_evidence(tmp_path):
  root = _workdir(tmp_path, stage="openqa", checkpoint=7)
  figures = {"step": 7, "data": "test.jsonl", "exact_match": 0.5}
  predictions.write_evaluation(
    root / predictions.PREDICTIONS, figures, [_question_prediction()]
  )

  path = report.write_report(str(root))

  page = path.read_text()
  assert "capital: <mark>Rome</mark>" in page and "<b>Roma</b>" in page
  assert "script" not in _outline(path).tags


def test_what_a_retriever_finds_is_shown_with_the_answer_marked(tmp_path):
  root = _workdir(tmp_path, stage="dpr", checkpoint=7)
  figures = {"step": 7, "data": "test.jsonl", "answer_recall_at_5": 0.5}
  passages = tuple(
    predictions.FoundPassage(
      uid=str(i),
      title="Italy",
      text=f"{_HOSTILE} {text}",
      score=2.5,
      holds_answer=holds,
    )
    for i, (text, holds) in enumerate(
      [("Romeo fell.", False), ("capital: Rome", True)]
    )
  )
  found = predictions.RetrievalPrediction(
    question="Which city?",
    references=("Roma", "Rome"),
    passages=passages,
    passage_uid="",
    answer_rank=2,
    passage_rank=None,
  )
  predictions.write_evaluation(root / predictions.PREDICTIONS, figures, [found])

  path = report.write_report(str(root))

  page = path.read_text()
  assert "capital: <mark>Rome</mark>" in page and "Romeo" in page
  assert page.count("<mark>") == page.count("holds the answer") == 1
  assert 'held by passage <b class="wrong">2</b>' in page
  assert "script" not in _outline(path).tags


def test_an_evaluation_of_an_older_checkpoint_is_not_shown(tmp_path):
  root = _workdir(tmp_path, checkpoint=8)
  figures = {"step": 7, "data": "held_out.jsonl"}
  predictions.write_evaluation(
    root / predictions.PREDICTIONS, figures, [_span_prediction("Capital: ")]
  )
  page = report.write_report(str(root)).read_text()
  assert "Capital: " not in page and "no validation data" in page


def test_a_directory_that_is_no_workdir_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match="not a run's workdir"):
    report.write_report(str(tmp_path))


def test_without_an_evaluation_the_validation_data_give_the_examples(workdirs):
  path = report.write_report(workdirs["openqa"])

  page = path.read_text()
  assert "10 of 10, evenly spaced" in page and "recall@5 of the" in page
  assert (path.parent / "examples.figures.json").exists()
  assert "Index versions there" in page and "corpus: 20 passages" in page


def test_the_figures_say_how_the_run_went(tmp_path):
  root = _workdir(tmp_path)
  lines = [
    {
      "step": step,
      "retrieval_utility": step / 10,
      "probe/recall_at_5": step / 100,
      "retrieval/wait_seconds": 0.01,
      "step_seconds": 0.5,
      "index/staleness_steps": step,
      "swap/first_step": step - 20,
    }
    for step in (20, 40, 60)
  ]
  _log(root, lines)

  page = report.write_report(str(root)).read_text()

  assert "<b>2.0 → 6.0</b>" in page and "<b>0.20 → 0.60</b>" in page
  assert "<b>2.0%</b>" in page  # 0.01 s of 0.5 s.
  assert "mean 40, at most 60" in page
  assert "<dt>Index swaps</dt><dd>2</dd>" in page
