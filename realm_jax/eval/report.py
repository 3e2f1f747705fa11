# SPDX-License-Identifier: Apache-2.0
"""`realm report`: one page on which a person sees what a run did."""

import base64
from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import jinja2
import numpy as np

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RefreshConfig, RunConfig
from realm_jax.data.corpus import read_manifest
from realm_jax.eval import plots, predictions, report_examples
from realm_jax.eval.evaluate import evaluate
from realm_jax.eval.metrics_file import Series, read_metrics, read_objects
from realm_jax.index import store
from realm_jax.index.corpora import read_moves
from realm_jax.train.metrics import METRICS_FILE

_EXAMPLES = 12
# Enough to draw the examples from, without a long wait for the page.
_EVALUATED = 64
# What a run is evaluated on, of the stages that have examples to show.
_DATA_KINDS = {"mlm": "texts", "realm": "texts", "openqa": "questions"}
_TITLES = {
  "ict": "Inverse cloze: warming the retriever up",
  "dpr": "Questions and their passages: supervising the retriever",
  "mlm": "Learning to read: a masked text beside its passage",
  "realm": "REALM pre-training",
  "openqa": "Open-domain question answering",
}
_SWAP_COLUMNS = {
  "swap/first_step": ("taken over at step", "{:,.0f}"),
  "swap/checkpoint_step": ("built from step", "{:,.0f}"),
  "swap/corpus": ("corpus", "{:.0f}"),
  "swap/num_passages": ("its passages", "{:,.0f}"),
  "swap/stale_steps": ("steps stale", "{:,.0f}"),
  "swap/stale_seconds": ("seconds stale", "{:,.0f}"),
  "swap/stall_seconds": ("step held up, ms", "{:,.1f}"),
  "swap/overlap_at_k": ("overlap of the one before", "{:.0%}"),
  "probe/recall_at_1": ("recall@1", "{:.3f}"),
  "probe/recall_at_5": ("recall@5", "{:.3f}"),
  "probe/recall_at_20": ("recall@20", "{:.3f}"),
}
_SWAP_SCALES = {"swap/stall_seconds": 1e3}
_FIGURE_LABELS = {
  "exact_match": "exact match",
  "f1": "F1",
  "open_book_exact_match": "held-out spans right, open book",
  "closed_book_exact_match": "the same, null document alone",
  "passage_recall_at_5": "recall@5 of the fact's passage",
  "answer_recall_at_5": "recall@5 of the answer string",
}


def write_report(workdir: str) -> epath.Path:
  """Writes workdir/report/report.html and its plots; returns the page's path.

  The page holds its plots, so it can be moved alone. Held-out examples are
  those of `workdir/evaluation` where that is of the newest checkpoint; else
  a part of the config's validation data is evaluated first.

  Raises:
    FileNotFoundError: the workdir has no config.json.
    ValueError: a malformed line of metrics.jsonl, by file and line.
  """
  root = epath.Path(workdir)
  run = workdirs.load(root)
  metrics = read_metrics(root / METRICS_FILE)
  directory = root / "report"
  directory.mkdir(parents=True, exist_ok=True)
  evaluation = _find_evaluation(root, run)
  page = (
    _environment()
    .get_template("report.html.jinja")
    .render(
      title=_TITLES[run.stage],
      workdir=str(root),
      facts=_facts(root, run, metrics),
      figures=_figures(metrics, evaluation),
      plots=_write_plots(directory, metrics),
      **_swap_table(metrics),
      **_examples(evaluation),
    )
  )
  path = directory / "report.html"
  path.write_text(page)
  return path


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("realm_jax.eval", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["probability"] = _probability
  return environment


def _probability(value: float) -> str:
  """Two digits where they say something: .005 to .995; else a bound."""
  if value >= 0.995:
    return "1.0"
  return f"{value:.2f}" if value >= 0.005 else "<.01"


def _write_plots(
  directory: epath.Path, metrics: Mapping[str, Series]
) -> list[dict[str, str]]:
  series, drawn = plots.index_age(metrics), []
  for panel in plots.PANELS:
    png = plots.draw(panel, series)
    if png is not None:
      (directory / f"{panel.name}.png").write_bytes(png)
      data = base64.b64encode(png).decode("ascii")
      drawn.append({"title": panel.title, "data": data})
  return drawn


def _facts(
  root: epath.Path, run: RunConfig, metrics: Mapping[str, Series]
) -> list[dict[str, str]]:
  last = max((int(s.steps[-1]) for s in metrics.values()), default=0)
  facts = {
    "Stage": run.stage,
    "Steps": f"{last:,} of {run.num_steps:,}"
    + ("" if workdirs.is_done(root) else ", not finished"),
    "Batch": f"{run.batch_size} queries",
    "Corpus": _describe_corpus(run.data.corpus),
    **{
      f"Corpus from checkpoint {move.from_step:,} on": _describe_corpus(
        move.directory
      )
      for move in read_moves(root)
    },
    "Encoder": f"{run.encoder.num_layers} layers, width "
    f"{run.encoder.hidden_size}",
    "Checkpoints kept": ", ".join(f"{s:,}" for s in checkpoints.steps(root)),
  }
  if run.stage == "realm":
    facts["Candidates"] = f"{run.retrieval.num_candidates} with the null one"
  if run.searches:
    facts["Refresh"] = _describe_refresh(run.refresh)
  versions = store.list_versions(root)
  if versions:
    facts["Index versions there"] = f"{len(versions)}, newest {versions[-1]}"
  if "swap/first_step" in metrics:
    # What the run began with was not swapped in.
    swaps = np.count_nonzero(metrics["swap/first_step"].values)
    facts["Index swaps"] = str(swaps)
  if "index/staleness_steps" in metrics:
    # What was logged are means over some steps, which hide the oldest.
    mean = np.nanmean(metrics["index/staleness_steps"].values)
    oldest = plots.index_age(metrics)["index/staleness_steps"].values.max()
    facts["Index age in steps"] = f"mean {mean:,.0f}, at most {oldest:,.0f}"
  return [{"label": k, "value": v or "none"} for k, v in facts.items()]


def _describe_refresh(refresh: RefreshConfig) -> str:
  if refresh.policy == "never":
    return "never"
  when = (
    f"at steps {', '.join(f'{step:,}' for step in refresh.steps)}"
    if refresh.steps
    else f"every {refresh.every_steps:,} steps"
  )
  limit = refresh.max_staleness_steps
  bound = f", at most {limit:,} steps old" if limit else ""
  return f"{refresh.policy}, {when}{bound}"


def _describe_corpus(directory: str) -> str:
  if not directory or not epath.Path(directory).exists():
    return directory
  manifest = read_manifest(directory)
  count, fingerprint = manifest["num_passages"], manifest["fingerprint"]
  return f"{directory}: {count:,} passages, {fingerprint[:8]}"


def _figures(
  metrics: Mapping[str, Series], evaluation: dict[str, Any] | None
) -> list[dict[str, str]]:
  """The few numbers to read first."""
  figures = []

  def add(label: str, value: str) -> None:
    figures.append({"label": label, "value": value})

  found = evaluation["figures"] if evaluation else {}
  for name, label in _FIGURE_LABELS.items():
    if name in found:
      add(label, f"{found[name]:.3f}")
  if "probe/recall_at_5" in metrics:
    recall = metrics["probe/recall_at_5"].values
    add("held-out recall@5, first and last index", _change(recall, "{:.2f}"))
  if "retrieval_utility" in metrics:
    utility = metrics["retrieval_utility"].values
    add("nats of retrieval utility, first and last", _change(utility, "{:.1f}"))
  if "loss" in metrics:
    loss = metrics["loss"].values
    add("nats of training loss, first and last", _change(loss, "{:.2f}"))
  wait = metrics.get("retrieval/wait_seconds")
  step = metrics.get("step_seconds")
  if wait is not None and step is not None:
    share = np.nansum(wait.values) / max(np.nansum(step.values), 1e-9)
    add("of the step time spent waiting for retrieval", f"{share:.1%}")
  return figures


def _change(values: np.ndarray, form: str) -> str:
  return f"{form.format(values[0])} → {form.format(values[-1])}"


def _swap_table(metrics: Mapping[str, Series]) -> dict[str, Any]:
  """Rows by swap; a column that the run did not log is left out."""
  columns = [name for name in _SWAP_COLUMNS if name in metrics]
  rows = []
  for step in metrics["swap/first_step"].steps.tolist() if columns else ():
    rows.append([_cell(metrics[name], name, step) for name in columns])
  return {
    "swap_columns": [_SWAP_COLUMNS[name][0] for name in columns],
    "swaps": rows,
  }


def _cell(series: Series, name: str, step: int) -> str:
  at = np.flatnonzero(series.steps == step)
  if not len(at):
    return ""
  value = series.values[at[0]] * _SWAP_SCALES.get(name, 1.0)
  return _SWAP_COLUMNS[name][1].format(value)


def _find_evaluation(root: epath.Path, run: RunConfig) -> dict[str, Any] | None:
  """Figures and predictions of the newest checkpoint, made if need be."""
  steps = checkpoints.steps(root)
  if not steps:
    return None
  own = root / "report" / "examples.jsonl"
  for path in (root / predictions.PREDICTIONS, own):
    if (beside := predictions.figures_path(path)).exists():
      figures = json.loads(beside.read_text())
      if figures["step"] == steps[-1]:
        return _read_evaluation(path, figures)
  kind, data = _DATA_KINDS.get(run.stage), run.data.validation
  if not kind or not data:
    return None
  figures = evaluate(
    str(root),
    questions=data if kind == "questions" else "",
    texts=data if kind == "texts" else "",
    predictions=str(own),
    limit=_EVALUATED,
  )
  return _read_evaluation(own, figures)


def _read_evaluation(
  path: epath.Path, figures: dict[str, Any]
) -> dict[str, Any]:
  lines = read_objects(path)
  return {"figures": figures, "predictions": [line for _, line in lines]}


def _examples(evaluation: dict[str, Any] | None) -> dict[str, Any]:
  view: dict[str, Any] = {
    "masked_examples": [],
    "questions": [],
    "retrieved": [],
    "sample": "",
    "evaluated": "",
    "no_examples": "None: the run has no checkpoint yet, or its config "
    "names no validation data. `realm evaluate` provides them.",
  }
  if evaluation is None or not evaluation["predictions"]:
    return view
  figures, found = evaluation["figures"], evaluation["predictions"]
  shown = report_examples.sample(found, _EXAMPLES)
  view["sample"] = (
    f"{len(shown)} of {len(found)}, evenly spaced: not chosen for being right."
  )
  view["evaluated"] = f"{figures['data']}, checkpoint {figures['step']:,}"
  if "passages" in found[0]:
    view["retrieved"] = [report_examples.retrieval_example(p) for p in shown]
  elif "question" in found[0]:
    view["questions"] = [report_examples.question_example(p) for p in shown]
  else:
    view["masked_examples"] = [report_examples.masked_example(p) for p in shown]
  return view
