# SPDX-License-Identifier: Apache-2.0
"""Configs of 20 steps with three swaps; the argument is "<kind>,<folder>"."""

from tests.integration import tiny_run

KINDS = ("per_mask", "joint", "openqa")  # Two marginals, and fine-tuning.


def get_config(argument):
  kind, folder = argument.split(",")
  stage = "openqa" if kind == "openqa" else "realm"
  run = tiny_run.get_config(f"{stage},{folder}")
  run.update(num_steps=20, batch_size=16, checkpoint_every_steps=20)
  run.refresh.update(
    policy="lockstep", every_steps=5, lag_steps=1, keep_versions=5
  )
  run.lengths.update(passage=32, joint=48)
  run.retrieval.num_candidates = 2
  if stage == "realm":
    run.retrieval.marginal = kind
  run.openqa.train_documents = True  # Or its index would need no refresh.
  for bert in (run.encoder, run.embedder.bert):
    bert.update(
      # So wide that FSDP splits the token table and the MLPs.
      hidden_size=64,
      mlp_size=256,
      # Rows lie elsewhere on their lines where fewer share one shape, and
      # dropout goes by place.
      dropout=0.0,
      attention_dropout=0.0,
    )
  return run
