# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from realm_jax import config
from realm_jax import workdir as workdir_lib
from realm_jax.data.collate import query_row
from realm_jax.eval import masked_spans, probe_page
from realm_jax.eval.probe import mask_whole_span, parse, probe

_ROOT = pathlib.Path(__file__).parents[2]
_TEXT = "The capital of Trinidad and Tobago is [[Port of Spain]]."


def _probe(workdir, *texts, **options):
  return list(probe(workdir, map(parse, texts), **options))


@pytest.fixture(scope="module")
def probed(workdirs):
  """Of a realm run, with the passages of its index."""
  (found,) = _probe(workdirs["realm"], _TEXT)
  return found


def test_the_brackets_are_no_part_of_the_text():
  text = parse("3 is a [[ Fermat ]] prime [so].")
  assert text.text == "3 is a  Fermat  prime [so]."
  (span,) = text.spans
  assert text.text[slice(*span)] == "Fermat"


@pytest.mark.parametrize(
  ("text", "number"),
  [
    ("3 is a Fermat prime.", 0),
    ("[[3]] is a [[Fermat]] prime.", 2),
    ("3 is a [[ ]] prime.", 1),
    ("3 is a [[Fermat prime.", 0),
  ],
)
def test_a_text_marks_one_span_that_is_not_empty(text, number):
  with pytest.raises(ValueError, match=f"marks {number} spans.*double bracket"):
    parse(text)


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("The capital of Peru is [[Li]]ma.", "'Li' .* whole word pieces"),
    ("The capital of Peru is [[☃]].", "'☃' .* not in the run's vocabulary"),
    ("so " * 40 + "[[Lima]].", "'Lima' .* a query has 38"),
    ("In " + "[[Lima Rome Lima Rome Lima Rome Lima]].", "are predicted"),
  ],
)
def test_a_span_that_cannot_be_filled_in_is_refused(
  run, tokenizer, text, reason
):
  with pytest.raises(ValueError, match=reason):
    mask_whole_span(parse(text), run, tokenizer)


def test_a_probe_is_what_evaluation_says_of_the_same_text(
  tmp_path, workdirs, write_lines
):
  text = parse(_TEXT)
  line = {"text": text.text, "spans": text.spans}
  path = write_lines(tmp_path / "texts.jsonl", [line])
  for stage in ("realm", "mlm"):
    (found,) = _probe(workdirs[stage], _TEXT)
    _, (wanted,) = masked_spans.evaluate_spans(
      workdirs[stage], path, corpus="", step=0, limit=0
    )
    _assert_alike(dataclasses.asdict(found), dataclasses.asdict(wanted))


def _assert_alike(found, wanted):
  """Equal, but for the rounding of numbers."""
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    if name == "candidates":
      for pair in zip(found[name], value, strict=True):
        _assert_alike(*pair)
    elif isinstance(value, float):
      assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-5)
    else:
      assert found[name] == value


def test_utilities_are_differences_of_log_probabilities(probed):
  null = np.log(probed.closed_book_answer_prob)
  assert probed.candidates[0].is_null
  assert probed.candidates[0].retrieval_utility == 0.0
  assert np.log(probed.candidates[0].answer_prob) == pytest.approx(null)
  for candidate in probed.candidates:
    utility = np.log(candidate.answer_prob) - null
    assert candidate.retrieval_utility == pytest.approx(utility, abs=1e-4)
  utility = np.log(probed.answer_prob) - null
  assert probed.retrieval_utility == pytest.approx(utility, abs=1e-4)


def test_of_one_piece_the_marginal_is_the_mean_over_passages(workdirs):
  (found,) = _probe(workdirs["realm"], "The capital [[of]] Peru is Lima.")
  probs = [c.retrieval_prob for c in found.candidates]
  assert sum(probs) == pytest.approx(1.0, rel=1e-5)
  mean = np.dot(probs, [c.answer_prob for c in found.candidates])
  assert found.answer_prob == pytest.approx(mean, rel=1e-4)


def test_a_passages_own_figures_do_not_depend_on_the_others(workdirs, probed):
  (more,) = _probe(workdirs["realm"], _TEXT, candidates=7)
  assert len(more.candidates) == 7 and len(probed.candidates) == 4
  for few, many in zip(probed.candidates, more.candidates, strict=False):
    assert (few.uid, few.prediction) == (many.uid, many.prediction)
    assert few.answer_prob == pytest.approx(many.answer_prob, rel=1e-3)
    # Log-odds of any two passages are the same among any others.
    ratio = more.candidates[1].retrieval_prob / many.retrieval_prob
    wanted = probed.candidates[1].retrieval_prob / few.retrieval_prob
    assert ratio == pytest.approx(wanted, rel=1e-3)


def test_a_given_passage_stands_for_the_same_one_found(
  tmp_path, workdirs, probed
):
  """No index is needed, and an encoder that never searched will do."""
  texts = [c.text for c in probed.candidates[1:]]
  workdir = tmp_path / "run"
  shutil.copytree(
    workdirs["realm"], workdir, ignore=shutil.ignore_patterns("index")
  )
  (given,) = _probe(str(workdir), _TEXT, passages=texts)
  assert [c.text for c in given.candidates] == ["", *texts]
  assert given.candidates[2].uid == "passage 2"
  for own, found in zip(given.candidates, probed.candidates, strict=True):
    assert own.answer_prob == pytest.approx(found.answer_prob, rel=1e-3)
    assert own.prediction == found.prediction


def test_without_a_retriever_each_passage_stands_by_itself(workdirs):
  passages = ["Lima is in Peru.", "Rome is in Italy."]
  (found,) = _probe(workdirs["mlm"], _TEXT, passages=passages)
  (alone,) = _probe(workdirs["mlm"], _TEXT)
  assert alone.candidates == ()
  assert found.answer_prob is None and found.retrieval_utility is None
  for one in (found, alone):
    assert one.prediction == one.closed_book_prediction
  assert found.closed_book_answer_prob == pytest.approx(
    alone.closed_book_answer_prob, rel=1e-3
  )
  assert [c.retrieval_prob for c in found.candidates] == [None] * 3
  utilities = [c.retrieval_utility for c in found.candidates]
  assert utilities[0] == 0.0 and utilities[1] != utilities[2]


@pytest.mark.parametrize("stage", ["ict", "dpr"])
def test_without_an_encoder_there_is_what_is_found(tmp_path, workdirs, stage):
  workdir = tmp_path / stage
  shutil.copytree(workdirs["ict"], workdir)
  run = dataclasses.replace(workdir_lib.load(workdir), stage=stage)
  (workdir / "config.json").write_text(config.dumps(run))
  for options in ({}, {"passages": ["Lima is here.", "Rome.", "In Peru."]}):
    (found,) = _probe(str(workdir), _TEXT, **options)
    probs = [c.retrieval_prob for c in found.candidates]
    assert len(probs) == 3 and sum(probs) == pytest.approx(1.0, rel=1e-5)
    assert not any(c.is_null for c in found.candidates)
    assert {c.answer_prob for c in found.candidates} == {None}
    assert found.answer_prob is None and found.prediction is None
    if not options:
      assert probs == sorted(probs, reverse=True)


def test_passages_too_long_are_refused_with_their_length(
  workdirs, run, tokenizer
):
  long = "Lima and " * 60
  count = len(tokenizer.encode(long))
  with pytest.raises(ValueError, match=f"has {count} word pieces, .* 1 to 53"):
    _probe(workdirs["realm"], _TEXT, passages=[long])
  with pytest.raises(ValueError, match="has 0 word pieces"):
    _probe(workdirs["realm"], _TEXT, passages=[" "])


def test_a_text_and_a_passage_must_fit_the_encoder_together(
  tmp_path, workdirs, run, tokenizer
):
  tight = dataclasses.replace(
    workdir_lib.load(workdirs["mlm"]),
    lengths=dataclasses.replace(run.lengths, joint=58),
  )
  workdir = tmp_path / "run"
  shutil.copytree(workdirs["mlm"], workdir)
  (workdir / "config.json").write_text(config.dumps(tight))
  passage = "Lima is here. " * 8
  query = query_row(
    tokenizer.encode(parse(_TEXT).text).ids, tokenizer, run.lengths.query
  )
  used = int(query["mask"].sum())
  with pytest.raises(ValueError, match=f"text of {used} .* 58 .*shorten"):
    _probe(str(workdir), _TEXT, passages=[passage])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"passages": ["x"], "candidates": 3}, "in place of a search"),
    ({"passages": ["x"], "corpus": "y"}, "in place of a search"),
    ({"candidates": 1}, "null document alone"),
    ({"corpus": "nowhere"}, "No corpus at nowhere"),
  ],
)
def test_arguments_that_do_not_go_together_are_refused(
  workdirs, options, message
):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    _probe(workdirs["realm"], _TEXT, **options)


def _page(found):
  out = io.StringIO()
  probe_page.show(found, Console(file=out, width=80))
  return out.getvalue()


def test_a_page_shows_the_span_the_figures_and_the_passages(probed):
  best = dataclasses.replace(
    probed.candidates[1],
    retrieval_prob=0.75,
    answer_prob=0.0625,
    retrieval_utility=2.5,
    title="A [title]",
    text="[bold]Some[/bold]\ntext " * 60,
  )
  page = _page(
    dataclasses.replace(probed, candidates=(probed.candidates[0], best))
  )
  assert "Trinidad and Tobago is [[Port of Spain]]." in page
  assert f"p(y|x) {probed.answer_prob:.3g}, p(y|null,x)" in page
  assert f"retrieval utility {probed.retrieval_utility:+.2f} nats" in page
  assert "0.75    0.0625     +2.50" in page
  assert f"A [title] [{best.uid}]: [bold]Some[/bold] text" in page
  assert page.count("Some") < 20 and "…" in page
  assert page.index("0.75") < page.index("the null document\n")


def test_a_page_leaves_out_what_a_stage_does_not_tell(workdirs):
  (found,) = _probe(workdirs["mlm"], _TEXT)
  page = _page(found)
  assert "p(y|x)" not in page and "p(z|x)" not in page
  assert f"the null document: {found.closed_book_prediction}" in page
  (found,) = _probe(workdirs["ict"], _TEXT)
  page = _page(found)
  assert "p(z|x)" in page
  assert "p(y" not in page and "filled in" not in page


def test_the_command_prints_an_object_a_line_of_its_input(workdirs, probed):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "realm_jax.cli",
      "probe",
      f"--workdir={workdirs['realm']}",
      "--json",
    ],
    input=f"{_TEXT}\n\nnothing marked\n",
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  # What came before a bad line is answered.
  assert done.returncode == 1
  assert "'nothing marked' marks 0 spans" in done.stderr
  (line,) = done.stdout.splitlines()
  wanted = json.loads(json.dumps(dataclasses.asdict(probed)))
  _assert_alike(json.loads(line), wanted)
