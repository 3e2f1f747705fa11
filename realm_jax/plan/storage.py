# SPDX-License-Identifier: Apache-2.0
"""What corpus, index and checkpoints take on hosts and on disk."""

import dataclasses

from etils import epath
import numpy as np

from realm_jax.config import RunConfig
from realm_jax.data.collate import passage_lengths
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index.embed import STATIC_LENGTHS, static_lengths
from realm_jax.index.scann_backend import scann_parameters

WIKIPEDIA_PASSAGES = 13_353_718  # REALM's, where no corpus says how many.
# Of a corpus: measured on SQuAD's 22,800 passages of 144 pieces.
_PASSAGE_BYTES = 50  # Beside the pieces: offsets, hashes, sentences.
_RECORD_BYTES = 3.6  # Of a piece's text and title, compressed.
_PIECE_BYTES = 2
_VECTOR_ITEMSIZE = 4  # float32, on disk and mapped.
# ScaNN builds 13,353,718 passages in 690 s on two cores (benchmarks/README.md).
SCANN_BUILD_SECONDS = 52e-6


@dataclasses.dataclass(frozen=True)
class CorpusSize:
  """A corpus as the index builder and the hosts see it.

  Attributes:
    passages: N
    tokens: of a passage as it is embedded, padding included, in the mean.
    mapped: bytes that are memory-mapped.
    disk: bytes of its directory.
    known: it was looked at; else its passages are taken to be full.
  """

  passages: int
  tokens: float
  mapped: float
  disk: float
  known: bool


def corpus_size(run: RunConfig, num_passages: int) -> CorpusSize:
  """Measures the run's corpus, or makes up one of full passages.

  Args:
    run: names the corpus.
    num_passages: N, if it is to differ from the corpus' own; 0 for its own.
  """
  path = run.data.corpus
  if path and epath.Path(path).exists():
    corpus = PassageCorpus.open(path)
    own = len(corpus)
    lengths = passage_lengths(corpus, np.arange(own), run.lengths.passage)
    static = static_lengths(lengths, STATIC_LENGTHS, run.lengths.passage)
    tokens = float(static[np.searchsorted(static, lengths)].mean())
    pieces = float(corpus.lengths.mean())
  else:
    own, tokens = WIKIPEDIA_PASSAGES, float(run.lengths.passage)
    corpus, pieces = None, tokens
  passages = num_passages or own
  mapped = passages * (_PIECE_BYTES * pieces + _PASSAGE_BYTES)
  disk = mapped + passages * _RECORD_BYTES * pieces
  return CorpusSize(passages, tokens, mapped, disk, corpus is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostMemory:
  """Bytes of a trainer's host, while an index is swapped for the next.

  Attributes:
    corpus: mapped, so that the system may drop what is not in use.
    vectors: mapped, too: of both versions.
    searchers: ScaNN's own, of both versions.
  """

  corpus: float
  vectors: float
  searchers: float

  @property
  def total(self) -> float:
    """Bytes with everything in memory."""
    return self.corpus + self.vectors + self.searchers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
  """Bytes of the workdir and of the corpus.

  Attributes:
    corpus: its directory.
    checkpoint: one.
    checkpoints: all that are kept, and one being written.
    index: one version.
    indexes: all that are kept, and one being written.
  """

  corpus: float
  checkpoint: float
  checkpoints: float
  index: float
  indexes: float


def searcher_bytes(run: RunConfig, num_passages: int) -> float:
  """Returns what ScaNN keeps of N passages, in memory as on disk.

  The hash has four bits for each two dimensions; a passage stands in two
  partitions, where there are any. Brute force has a copy of the vectors.
  """
  if run.retrieval.backend != "scann":
    return 0.0
  dim = run.embedder.dim
  layout = scann_parameters(num_passages, run.retrieval.scann)
  if not layout.reorder:
    return num_passages * dim * float(_VECTOR_ITEMSIZE)
  return num_passages * (dim + 20.0 if layout.num_leaves else dim / 2 + 10.0)


def host_memory(run: RunConfig, corpus: CorpusSize) -> HostMemory:
  """Returns what a host needs for corpus and index."""
  if not run.searches:
    return HostMemory(corpus=corpus.mapped, vectors=0.0, searchers=0.0)
  return HostMemory(
    corpus=corpus.mapped,
    vectors=2 * vector_bytes(run, corpus.passages),
    searchers=2 * searcher_bytes(run, corpus.passages),
  )


def vector_bytes(run: RunConfig, num_passages: int) -> float:
  """Returns the bytes of an index' vectors."""
  return float(num_passages * run.embedder.dim * _VECTOR_ITEMSIZE)


def device_index_bytes(
  run: RunConfig, num_passages: int, devices_on_host: int
) -> float:
  """Returns what a device holds of both versions of a `device` index."""
  if run.retrieval.backend != "device" or not run.searches:
    return 0.0
  itemsize = 2 if run.retrieval.device_dtype == "bfloat16" else 4
  return 2 * num_passages * run.embedder.dim * itemsize / devices_on_host


def disk(
  run: RunConfig, corpus: CorpusSize, state: float, retriever: float
) -> Disk:
  """Returns what is written.

  Args:
    run: says how much is kept.
    corpus: that is indexed.
    state: bytes of the whole parameters and moments.
    retriever: bytes of the retriever's parameters, which a version holds.
  """
  index = 0.0
  if run.searches:
    vectors = vector_bytes(run, corpus.passages)
    index = vectors + searcher_bytes(run, corpus.passages) + retriever
  return Disk(
    corpus=corpus.disk,
    checkpoint=state,
    checkpoints=state * (run.keep_checkpoints + 1),
    index=index,
    indexes=index * (run.refresh.keep_versions + 1),
  )
