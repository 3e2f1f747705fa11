# SPDX-License-Identifier: Apache-2.0
"""The README of an exported model: what it is, its scores, its config."""

import json
from typing import Any

from realm_jax import config
from realm_jax.config import RunConfig
from realm_jax.eval.figures import INTERVALS

_POOLED = {
  "pooler": "The vector is made of `pooler_output`",
  "cls": "The vector is made of the last state of [CLS]",
  "mean": "The vector is made of the mean of the last states of all tokens",
}


def model_card(
  run: RunConfig, step: int, part: str, figures: dict[str, Any] | None
) -> str:
  """Returns the text, in Markdown.

  Args:
    run: the config that the model was trained with.
    step: of the checkpoint.
    part: "retriever", "encoder" or "reader".
    figures: of an evaluation of that checkpoint, if there is one.
  """
  lines = [
    "---",
    "library_name: transformers",
    "tags: [realm, retrieval]",
    "---",
    "",
    f"# REALM: {part}",
    "",
    f"Of a run of stage `{run.stage}`, checkpoint {step:,}; exported by "
    "realm_jax.",
    "",
    *_usage(run, part),
    "",
    "## Scores",
    "",
    *_scores(figures),
    "",
    "## Config",
    "",
    "```json",
    config.dumps(run),
    "```",
  ]
  return "\n".join(lines) + "\n"


def _usage(run: RunConfig, part: str) -> list[str]:
  lengths = run.lengths
  if part == "encoder":
    return [
      "`BertForMaskedLM`: fills the masks of a text beside a passage, laid out "
      f"as [CLS] text [SEP] passage [SEP], up to {lengths.joint} tokens.",
    ]
  if part == "reader":
    return [
      "`BertModel`, and in `span_head.safetensors` what scores the spans of a "
      "passage beside a question, with the names of `RealmReader`. Rows are "
      f"[CLS] question [SEP] passage [SEP], up to {lengths.joint} tokens.",
    ]
  embedder = run.embedder
  after = (
    ", divided by its length."
    if embedder.head == "l2"
    else ", times `cls.dense` of `projection.safetensors`, and normalised by "
    f"`cls.LayerNorm` with an epsilon of {embedder.head_norm_eps}."
  )
  return [
    f"`BertModel`. {_POOLED[embedder.pooling]}{after}",
    "",
    "The relevance of a passage is the inner product of its vector and the "
    f"query's, over {embedder.temperature}. Queries are [CLS] query [SEP] of "
    f"up to {lengths.query} tokens; passages [CLS] title [SEP] body [SEP] of "
    f"up to {lengths.passage}, the title in segment 0, the body in segment 1.",
  ]


def _scores(figures: dict[str, Any] | None) -> list[str]:
  if figures is None:
    return ["Not evaluated."]
  rows = [
    f"| {name} | {figures[name]:.3f} | {low:.3f}-{high:.3f} |"
    for name, (low, high) in figures[INTERVALS].items()
  ]
  return [
    f"{figures['num_examples']:,} examples of {json.dumps(figures['data'])}, "
    f"checkpoint {figures['step']:,}.",
    "",
    "| figure | value | 95% interval |",
    "|---|---|---|",
    *rows,
  ]
