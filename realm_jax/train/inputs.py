# SPDX-License-Identifier: Apache-2.0
"""What every stage opens."""

import dataclasses
from typing import Any

import grain
import jax
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data.batches import make_batches
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer


@dataclasses.dataclass(frozen=True)
class Inputs:
  """A run's tokenizer and corpus, and batches of what is made of them."""

  run: RunConfig
  tokenizer: Tokenizer
  corpus: PassageCorpus
  num_devices: int  # Of this process, over which its rows divide.

  def batches(self, dataset: grain.MapDataset) -> grain.DatasetIterator:
    """Returns an iterator over this process' share of each batch."""
    return make_batches(
      dataset,
      self.run.batch_size,
      jax.process_index(),
      jax.process_count(),
    )

  def stand_in(self, dataset: grain.MapDataset) -> Any:
    """Returns this process' share of a batch: the first example, repeated."""
    share = self.run.batch_size // jax.process_count()
    return jax.tree.map(lambda x: np.stack([x] * share), dataset[0])
