# SPDX-License-Identifier: Apache-2.0
"""What an ablation changes of a pre-training run, and of what follows it."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from realm_jax.config import RunConfig

Switch = Callable[[RunConfig], RunConfig]

STALER = 30  # REALM section 4.5: that much rarer is the index rebuilt.


def _changed(part: str, **fields: Any) -> Switch:
  def change(run: RunConfig) -> RunConfig:
    new = dataclasses.replace(getattr(run, part), **fields)
    return dataclasses.replace(run, **{part: new})

  return change


def _staler(run: RunConfig) -> RunConfig:
  every = run.refresh.every_steps * STALER
  return _changed("refresh", every_steps=every)(run)


def _retriever_as_it_was(run: RunConfig) -> RunConfig:
  run = _changed("refresh", policy="never")(run)
  return _changed("optimizer", retriever_scale=0.0)(run)


# Of pre-training, one change each. REALM table 2 has the masks, the staler
# index, and the retriever as the inverse cloze task left it (ORQA's), though
# its ORQA has a BERT for an encoder, and ours one that trains as long as
# REALM's does.
PRETRAINING: Mapping[str, Switch] = {
  "random_spans": _changed("data", masking="span"),
  "random_tokens": _changed("data", masking="token"),
  "stale": _staler,
  "frozen_index": _changed("refresh", policy="never"),
  "ict_retriever": _retriever_as_it_was,
  "no_null": _changed("retrieval", null_document=False),
  "own_passage": _changed("retrieval", exclude_own=False),
  "joint": _changed("retrieval", marginal="joint"),
}

# Of fine-tuning: whose retriever and whose encoder it starts from. "base" is
# what pre-training itself started from.
STARTS: Mapping[str, tuple[str, str]] = {
  "both": ("realm", "realm"),
  "realm_retriever": ("realm", "base"),
  "realm_encoder": ("base", "realm"),
  "neither": ("base", "base"),
}
