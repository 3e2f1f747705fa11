# SPDX-License-Identifier: Apache-2.0
"""Training steps of Hugging Face's REALM; `turns.py` starts this.

Reads paths of .npz files, one a line; trains on the batches of each and
answers with the mean seconds a step.
"""

import json
import sys
import time

import numpy as np
import torch
from transformers.models.deprecated.realm.configuration_realm import (
  RealmConfig,
)
from transformers.models.deprecated.realm.modeling_realm import (
  RealmKnowledgeAugEncoder,
  RealmScorer,
)

Batch = dict[str, torch.Tensor]


def read_batches(path: str) -> list[Batch]:
  """Returns the batches that `turns.py` wrote."""
  batches: dict[int, Batch] = {}
  with np.load(path) as file:
    for name in file.files:
      number, _, field = name.partition("/")
      value = torch.from_numpy(file[name].astype(np.int64))
      batches.setdefault(int(number), {})[field] = value
  return [batches[i] for i in sorted(batches)]


class Trainer:
  """Scorer, knowledge-augmented encoder and optimiser."""

  def __init__(self, architecture: dict[str, int]) -> None:
    config = RealmConfig(**architecture)
    self._k = config.num_candidates
    self._scorer = RealmScorer(config).train()
    self._encoder = RealmKnowledgeAugEncoder(config).train()
    modules = (self._scorer, self._encoder)
    self._parameters = [p for module in modules for p in module.parameters()]
    self._optimizer = torch.optim.AdamW(
      self._parameters, lr=3e-5, eps=1e-6, weight_decay=0.01
    )

  def step(self, batch: Batch) -> None:
    """One update."""

    def candidates(name: str) -> torch.Tensor:
      rows = batch[name]
      return rows.view(-1, self._k, rows.shape[-1])  # [B, K, length]

    scores = self._scorer(
      input_ids=batch["query_ids"],
      token_type_ids=batch["query_segments"],
      attention_mask=batch["query_mask"],
      candidate_input_ids=candidates("passage_ids"),
      candidate_token_type_ids=candidates("passage_segments"),
      candidate_attention_mask=candidates("passage_mask"),
    ).relevance_score
    loss = self._encoder(
      input_ids=candidates("joint_ids"),
      token_type_ids=candidates("joint_segments"),
      attention_mask=candidates("joint_mask"),
      relevance_score=scores,
      labels=batch["labels"],
      mlm_mask=batch["mlm_mask"],
    ).loss
    self._optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
    self._optimizer.step()


def main() -> None:
  """Answers each line of standard input with a line."""
  trainer = Trainer(json.loads(sys.argv[1]))
  for line in sys.stdin:
    batches = read_batches(line.strip())
    started = time.perf_counter()
    for batch in batches:
      trainer.step(batch)
    seconds = (time.perf_counter() - started) / len(batches)
    print(seconds, flush=True)


if __name__ == "__main__":
  main()
