# SPDX-License-Identifier: Apache-2.0
"""One index version: embedded, built, checked, published.

Several makers of one version share its shards, and one of them finishes it:
see `drafts`.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import pathlib
import random
import shutil
import time
from typing import NamedTuple

from etils import epath
import numpy as np
import rich.console
import rich.progress

from realm_jax import sharding
from realm_jax import workdir as workdirs
from realm_jax.checksums import describe_file
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import Tokenizer
from realm_jax.index import drafts, publish, store
from realm_jax.index.drafts import Draft
from realm_jax.index.embed import CorpusEmbedder
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.manifest import Manifest, library_versions
from realm_jax.index.reuse import PASSAGES_FILE, KnownVectors, known_vectors
from realm_jax.index.scann_backend import build_scann, scann_parameters
from realm_jax.index.verify import verify
from realm_jax.shapes import Params

_log = logging.getLogger(__name__)


class GivenVectors(NamedTuple):
  """Vectors of a corpus that were not made here."""

  # (first row, one past the last) -> f32[n, D].
  rows: Callable[[int, int], np.ndarray]
  reproducible: bool  # The run's document tower gives them from the passages.


class PhaseClock:
  """Wall time by phase, in seconds."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}
    self._since = time.perf_counter()

  def lap(self, phase: str) -> None:
    """Ends a phase, which began as the last one ended."""
    now = time.perf_counter()
    self.seconds[phase] = now - self._since
    self._since = now


class VersionMaker:
  """Makes versions over one corpus, alone or with others.

  Attributes:
    corpus: that is indexed.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    run: RunConfig,
    corpus: PassageCorpus,
    tokenizer: Tokenizer,
    given: GivenVectors | None,
    poll_seconds: float,
  ) -> None:
    """Embeds nothing yet.

    Args:
      workdir: whose versions are made.
      run: its config.
      corpus: to index.
      tokenizer: the corpus' own.
      given: vectors to take, where another program embedded the corpus.
      poll_seconds: between two looks at what the others have done.

    Raises:
      ValueError: the corpus fits neither ScaNN's layout nor the tokenizer.
    """
    if run.retrieval.backend == "scann":
      # Refuses a layout that does not fit, before anything is embedded.
      scann_parameters(len(corpus), run.retrieval.scann)
    self.corpus = corpus
    self._workdir, self._run, self._given = workdir, run, given
    self._embedder = CorpusEmbedder(
      run, corpus, tokenizer, sharding.local_mesh()
    )
    self._poll_seconds = poll_seconds

  def make(
    self, draft: Draft, retriever: Params, clock: PhaseClock
  ) -> Manifest | None:
    """Embeds what is missing and finishes the version, or sees it finished.

    Args:
      draft: of the version; its copy must be in use.
      retriever: the checkpoint's.
      clock: is told of the phases.

    Returns:
      What was published here; None if another did it.

    Raises:
      VersionRefused: the version failed its checks.
      FileExistsError: another was as fast.
      FileNotFoundError: the draft was removed.
      OSError: a file cannot be written.
    """
    known = self._known(draft)
    while not draft.published:
      with draft.claim() as shard:
        if shard is not None and shard in draft.missing():
          draft.add(shard, self._embed(retriever, draft, shard, known))
          continue
      if not draft.missing():
        clock.lap("embed")
        with draft.claim_finish() as mine:
          # Another may have published between the look and the claim.
          if mine and not draft.published and not self._damaged(draft):
            return self._finish(draft, retriever, clock)
      time.sleep(self._poll_seconds * random.uniform(0.5, 1.0))
    return None

  def _known(self, draft: Draft) -> KnownVectors | None:
    known = known_vectors(
      (self._workdir, *self._start()), self.corpus, draft.plan.embedder_hash
    )
    if known:
      _log.info(
        "%d of %d vectors are those of %s",
        known.num_known,
        draft.plan.num_passages,
        known.version,
      )
    return known

  def _start(self) -> Iterator[epath.Path]:
    """Yields the run that the retriever started from, if it is there still."""
    source = self._run.init.retriever
    with contextlib.suppress(FileNotFoundError):
      if source and (named := workdirs.named_by(source)):
        yield named[0]

  def _damaged(self, draft: Draft) -> bool:
    damaged = draft.drop_damaged()
    if damaged:
      _log.warning("Embedding again, as they are damaged: %s", damaged)
    return bool(damaged)

  def _finish(
    self, draft: Draft, retriever: Params, clock: PhaseClock
  ) -> Manifest | None:
    """Builds the searcher over all shards, and publishes if it holds good."""
    directory, plan, shards = draft.directory, draft.plan, draft.shards()
    embeddings = Embeddings(
      [np.load(draft.local / shard.path, mmap_mode="r") for shard in shards]
    )
    params = describe_file(directory, directory / drafts.PARAMS_FILE)
    draft.copy.fetch([params], checksums=False)
    passages = draft.add_array(PASSAGES_FILE, self.corpus.passage_hashes)
    folder = draft.local_folder("scann")
    shutil.rmtree(folder, ignore_errors=True)
    parameters = self._build_searcher(embeddings, folder)
    manifest = Manifest(
      version=directory.name,
      step=plan.step,
      checkpoint_unix_secs=plan.checkpoint_unix_secs,
      corpus_fingerprint=self.corpus.fingerprint,
      tokenizer_fingerprint=self.corpus.tokenizer_fingerprint,
      embedder_hash=plan.embedder_hash,
      num_passages=embeddings.shape[0],
      dim=embeddings.shape[1],
      backend="scann" if parameters else "exact",
      scann=parameters,
      searcher=folder.name if parameters else "",
      shards=tuple(shard.path for shard in shards),
      files=(
        *shards,
        params,
        passages,
        *draft.add_folder(folder),
      ),
      libraries=library_versions(),
    )
    clock.lap("index")
    # What is verified is what the trainer will search: recall is of that.
    opened = store.open_files(
      draft.local, manifest, self.corpus, self._run.retrieval
    )
    checks = verify(
      opened.index,
      opened.embeddings,
      None
      if self._given and not self._given.reproducible
      else lambda ids: self._embedder.embed(retriever, ids),
      shape=(len(self.corpus), self._run.embedder.dim),
      min_recall=self._run.refresh.min_recall_at_10,
      seed=plan.step,
    )
    clock.lap("verify")
    manifest = dataclasses.replace(
      manifest,
      checks=checks,
      phase_seconds=clock.seconds,
      published_unix_secs=time.time(),
    )
    if draft.published:
      draft.drop_folder(folder)  # Another builder was as fast.
      return None
    publish.publish(directory, manifest)
    return manifest

  def _embed(
    self,
    retriever: Params,
    draft: Draft,
    shard: int,
    known: KnownVectors | None,
  ) -> np.ndarray:
    rows = draft.plan.rows(shard)
    if self._given:
      return self._given.rows(int(rows[0]), int(rows[-1]) + 1)
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=console,
      transient=True,
      disable=not console.is_terminal,
    ) as bar:
      name = f"Embed {draft.directory.name}"
      if draft.plan.num_shards > 1:
        name += f", shard {shard + 1} of {draft.plan.num_shards}"
      task = bar.add_task(name, total=len(rows))

      def embed(ids: np.ndarray) -> np.ndarray:
        return self._embedder.embed(
          retriever, ids, progress=lambda done: bar.advance(task, done)
        )

      return known.complete(rows, embed) if known else embed(rows)

  def _build_searcher(
    self, embeddings: Embeddings, folder: pathlib.Path
  ) -> dict[str, int]:
    """Writes ScaNN's files, if that is the back end; returns its layout."""
    if self._run.retrieval.backend != "scann":
      return {}
    index = build_scann(embeddings, self._run.retrieval.scann)
    index.save(folder)
    return dataclasses.asdict(index.parameters)
