# SPDX-License-Identifier: Apache-2.0
"""Names of array axes and of the dicts that travel between packages.

Axes, in every signature and comment:

  B  queries in the global batch      K  candidates, null document included
  Q  query tokens                     P  passage tokens
  T  joint (query + passage) tokens   M  masked positions
  H  model width                      D  retrieval width
  V  vocabulary                       N  passages of the corpus
  C  retriever beam                   R  passages that the reader reads
  L  places of a line of packed rows  S  slots for rows on such a line
  W  widest answer span, in pieces    n  rows, when none of these is meant

Lower case is this device's or this host's share. A mask is bool, True = keep.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

Array = Any  # np.ndarray on the host, jax.Array on the device.
Params = Mapping[str, Any]
Batch = dict[str, Any]  # Leaves: arrays whose first axis is sharded.
Sums = dict[str, tuple[Array, Array]]  # Metric: (sum, count), both f32[].


class TokenRows(TypedDict):
  """Token sequences of one static length T, padded on the right."""

  ids: Array  # i32[n, T]
  segments: Array  # i32[n, T]: 0 query or title, 1 passage body.
  mask: Array  # bool[n, T]: True where there is a token.


class PackedRows(TypedDict):
  """n rows of unequal length, several to a line, so that little is padding.

  A line has S slots, one a row. Row `i` of the batch is the one in slot
  `order[i]` of all lines' slots, line after line.
  """

  ids: Array  # i32[lines, L]
  segments: Array  # i32[lines, L]
  mask: Array  # i32[lines, L]: whose token it is, 1 to S; 0 for padding.
  starts: Array  # i32[lines, S]: where on its line a slot's row begins.
  order: Array  # i32[n]
