# SPDX-License-Identifier: Apache-2.0
"""Examples to this process' share of each global batch, resumable."""

import grain
from jaxtyping import Int32
import numpy as np

# Tokenising is short work: few threads, which leave the cores to the device.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
# Of a dataset without end. Grain's own limit overflows in its count of batches,
# which it divides as floats.
_MOST_BATCHES = 2**40


def make_batches(
  dataset: grain.MapDataset,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Returns an iterator over batches, with `get_state` and `set_state`.

  Global batch `s` is the examples `s * B` to `(s + 1) * B - 1`, process 0
  having the first of them: how many processes there are changes nothing.
  What is left over at the end is dropped.

  Args:
    dataset: examples, each a tree of arrays of one shape.
    batch_size: B, global.
    process_index: whose share this is.
    process_count: how many processes share a batch.

  Raises:
    ValueError: B does not divide over the processes, or there are fewer
      examples than B.
  """
  if batch_size % process_count:
    raise ValueError(
      f"batch_size ({batch_size}) does not divide over {process_count} "
      "processes."
    )
  num_batches = min(len(dataset) // batch_size, _MOST_BATCHES)
  if num_batches == 0:
    raise ValueError(
      f"batch_size ({batch_size}) exceeds the {len(dataset)} examples there "
      "are."
    )
  shares = dataset[: num_batches * batch_size].batch(
    batch_size // process_count
  )
  return iter(
    shares[process_index::process_count].to_iter_dataset(_READ_OPTIONS)
  )


def sample_lengths(
  dataset: grain.MapDataset, field: str, count: int = 512
) -> Int32[np.ndarray, "_"]:
  """Returns how many tokens each of that field's rows of some examples has.

  Before the dataset is shared out: the same on every process.
  """
  first = range(min(count, len(dataset)))
  lengths = [dataset[i][field]["mask"].sum(axis=-1) for i in first]
  return np.array(lengths, np.int32).reshape(-1)
