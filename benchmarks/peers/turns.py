# SPDX-License-Identifier: Apache-2.0
"""Gives a peer's process the batches that we trained on, and its turn."""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

import numpy as np

from realm_jax.config import RunConfig
from realm_jax.shapes import Batch, PackedRows, TokenRows


class Peer:
  """hf_realm.py in another Python; idle between turns."""

  def __init__(self, python: str, run: RunConfig, padding: str) -> None:
    """Starts the process.

    Args:
      python: interpreter with benchmarks/peers/requirements.txt installed.
      run: whose architecture and lengths it takes.
      padding: "max" or "longest", see README.md.
    """
    self._run, self.padding = run, padding
    self._folder = tempfile.TemporaryDirectory()
    bert = run.encoder
    architecture = {
      "vocab_size": bert.vocab_size,
      "hidden_size": bert.hidden_size,
      "num_hidden_layers": bert.num_layers,
      "num_attention_heads": bert.num_heads,
      "intermediate_size": bert.mlp_size,
      "hidden_act": bert.activation,
      "retriever_proj_size": run.embedder.dim,
      "num_candidates": run.retrieval.num_candidates,
    }
    script = pathlib.Path(__file__).with_name("hf_realm.py")
    self._process = subprocess.Popen(
      [python, str(script), json.dumps(architecture)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def turn(self, batches: list[Batch]) -> float:
    """Returns the peer's seconds a step, the mean over the batches.

    Raises:
      RuntimeError: the peer ended.
    """
    path = pathlib.Path(self._folder.name) / "batches.npz"
    dense = [self._dense(batch) for batch in batches]
    np.savez(
      path,
      **{
        f"{i}/{name}": value
        for i, batch in enumerate(dense)
        for name, value in batch.items()
      },
    )
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    self._process.stdin.write(f"{path}\n")
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError(f"The peer ended with {self._process.wait()}.")
    return float(answer)

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()
    self._folder.cleanup()

  def _dense(self, batch: Batch) -> dict[str, Any]:
    limits, query = self._run.lengths, batch["query"]
    fields = {
      "query": self._cut(query),
      "passage": self._cut(_whole(batch["passages"], limits.passage)),
      "joint": self._cut(_whole(batch["joints"], limits.joint)),
    }
    length = fields["joint"]["ids"].shape[1]
    labels = np.zeros((len(query["ids"]), length), np.int32)
    mlm_mask = np.zeros_like(labels)
    rows = np.arange(len(labels))[:, None]
    labels[rows, batch["positions"]] = batch["targets"]
    mlm_mask[rows, batch["positions"]] = 1
    flat = {
      f"{field}_{name}": value
      for field, value_of in fields.items()
      for name, value in value_of.items()
    }
    return flat | {"labels": labels, "mlm_mask": mlm_mask}

  def _cut(self, rows: TokenRows) -> TokenRows:
    if self.padding == "max":
      return rows
    longest = int(rows["mask"].sum(axis=1).max())
    return TokenRows(
      ids=rows["ids"][:, :longest],
      segments=rows["segments"][:, :longest],
      mask=rows["mask"][:, :longest],
    )


def _whole(rows: PackedRows, length: int) -> TokenRows:
  """Lays packed rows out one to a line again, in their own order."""
  line, slot = np.divmod(rows["order"], rows["starts"].shape[1])
  place = rows["starts"][line, slot][:, None] + np.arange(length)
  width = rows["ids"].shape[1]
  on_line = place < width
  place = np.minimum(place, width - 1)
  own = rows["mask"][line[:, None], place] == slot[:, None] + 1
  mask = on_line & own
  return TokenRows(
    ids=np.where(mask, rows["ids"][line[:, None], place], 0),
    segments=np.where(mask, rows["segments"][line[:, None], place], 0),
    mask=mask,
  )
