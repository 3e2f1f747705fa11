# SPDX-License-Identifier: Apache-2.0
"""The index builder: a job beside the trainer, that may die at any moment.

It reads checkpoints and writes index versions; all that it knows lies in
those two directories, so a restarted builder goes on where they say, and
several builders share the work. A version that is begun is finished, though a
newer checkpoint may come meanwhile: a builder that always turned to the newest
might never publish any.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib
import random
import shutil
import time
from typing import NamedTuple

from etils import epath
import numpy as np
import rich.console
import rich.progress

from realm_jax import checkpoints, sharding
from realm_jax import workdir as workdirs
from realm_jax.checksums import describe_file
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.index import drafts, publish, retention, store
from realm_jax.index.agenda import Agenda
from realm_jax.index.corpora import open_corpora
from realm_jax.index.drafts import Draft, DraftPlan
from realm_jax.index.embed import CorpusEmbedder
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import (
  Manifest,
  embedder_hash,
  library_versions,
)
from realm_jax.index.reuse import PASSAGES_FILE, KnownVectors, known_vectors
from realm_jax.index.scann_backend import build_scann, scann_parameters
from realm_jax.index.verify import VersionRefused, verify
from realm_jax.shapes import Params

_log = logging.getLogger(__name__)
# A checkpoint that could not be read and is still there after so long is
# damaged; until then it may be half deleted.
DELETION_SECONDS = 2.0


class GivenVectors(NamedTuple):
  """Vectors of a corpus that were not made here."""

  # (first row, one past the last) -> f32[n, D].
  rows: Callable[[int, int], np.ndarray]
  reproducible: bool  # The run's document tower gives them from the passages.


def build_index(
  workdir: epath.PathLike,
  *,
  watch: bool = False,
  corpus: str = "",
  given: GivenVectors | None = None,
  poll_seconds: float = 0.5,
) -> list[str]:
  """Builds the newest checkpoint's index, or with `watch` one after another.

  A version that a reader found damaged is made anew before any other.
  `watch` follows refresh.policy: under lockstep every refresh checkpoint, in
  order; under async the newest that there is; under never the first; always
  the last one of a finished run, and then it ends. When the run moves to
  another corpus, the newest index is first made again over that.

  Args:
    workdir: of the trainer; with `watch`, it may not have begun yet.
    watch: go on until TRAINING_DONE.
    corpus: directory of a corpus to index instead of the run's.
    given: vectors to take, where another program embedded the corpus.
    poll_seconds: between two looks at the workdir.

  Returns:
    The versions that this call published.

  Raises:
    FileNotFoundError: the workdir, a checkpoint or the corpus is not there.
    ValueError: the corpus and the config do not fit together, or a version is
      older than a published one.
    VersionRefused: the (last) checkpoint's version failed its checks; what
      was measured lies beside its place.
    OSError: a file cannot be written. Nothing is published then.
  """
  if watch and corpus:
    raise ValueError(
      f"--watch follows the run's own corpus: corpus={corpus!r} can be indexed "
      "without --watch only. To have the run move to it, `realm use-corpus`."
    )
  if watch:
    _wait_for_config(workdir, poll_seconds)
  run = _load_config(workdir)
  with Leases() as leases:
    builder = _Builder(workdir, run, corpus, leases, poll_seconds, given)
    if watch:
      return _watch(builder, poll_seconds)
    step = builder.agenda.damaged_step()
    if step is None:
      step = checkpoints.newest_step(workdir)
    return builder.build(step)


def _wait_for_config(workdir: epath.PathLike, poll_seconds: float) -> None:
  path = epath.Path(workdir) / workdirs.CONFIG_FILE
  if not path.exists():
    _log.info("Waiting for the trainer to write %s", path)
  while not path.exists():
    time.sleep(poll_seconds)


def _load_config(workdir: epath.PathLike) -> RunConfig:
  run = workdirs.load(workdir)
  if not run.has_retriever:
    raise ValueError(
      f"{os.fspath(workdir)} is a run of stage {run.stage!r} which has no "
      "retriever of vectors, and so no index."
    )
  return run


def _watch(builder: "_Builder", poll_seconds: float) -> list[str]:
  published = []
  while True:
    # Before the checkpoints are listed: what is listed then is all there is.
    done = workdirs.is_done(builder.workdir)
    step = builder.agenda.next_step(done=done)
    if step is not None:
      try:
        published += builder.build(step)
      except VersionRefused as refused:
        _log.error("Index of checkpoint %d refused: %s", step, refused)
      except FileNotFoundError:
        there = step in checkpoints.steps(builder.workdir)
        if there or builder.run.refresh.policy == "lockstep":
          raise
        _log.info("Checkpoint %d went while it was read", step)
    elif done:
      builder.clean()  # The trainer deletes no more checkpoints.
      builder.agenda.check_last()
      return published
    else:
      time.sleep(poll_seconds)


class _Builder:
  """Builds the versions of one workdir, alone or with others."""

  def __init__(
    self,
    workdir: epath.PathLike,
    run: RunConfig,
    corpus: str,
    leases: Leases,
    poll_seconds: float,
    given: GivenVectors | None,
  ) -> None:
    self.workdir, self.run, self._given = workdir, run, given
    self._corpora = open_corpora(workdir, run, corpus)
    self._tokenizer = load_tokenizer(run.data.tokenizer)
    self._turn_to(self._corpora.open(self._corpora.moves()[0]))
    self._leases, self._observer = leases, LeaseObserver()
    self.agenda = Agenda(workdir, run, self._corpora, self._observer)
    self._poll_seconds = poll_seconds

  def _turn_to(self, corpus: PassageCorpus) -> None:
    """Makes what follows be over a corpus."""
    if self.run.retrieval.backend == "scann":
      # Refuses a layout that does not fit, before anything is embedded.
      scann_parameters(len(corpus), self.run.retrieval.scann)
    self._corpus = corpus
    self._embedder = CorpusEmbedder(
      self.run, corpus, self._tokenizer, sharding.local_mesh()
    )

  def build(self, step: int) -> list[str]:
    """Sees to it that a checkpoint's version is published.

    Returns:
      The version, if this builder published it; else nothing.
    """
    corpus = self._corpora.open(self._corpora.of_step(step))
    version = store.version_name(step, corpus.fingerprint)
    if version in store.list_versions(self.workdir):
      _log.info("Index version %s is published already", version)
      return []
    if corpus is not self._corpus:
      self._turn_to(corpus)
    publish.check_newest(self.workdir, self._corpus.fingerprint, step)
    clock = _Clock()
    plan, retriever = self._plan(step, version)
    clock.lap("restore")
    directory = self._directory(version)
    try:
      draft = drafts.begin(
        directory, plan, retriever, self._leases, self._observer
      )
      with draft.copy.in_use():
        manifest = self._make(draft, retriever, clock)
    except VersionRefused as refused:
      publish.refuse(directory, str(refused), refused.checks)
      raise
    except FileNotFoundError:
      if self.agenda.newest_handled() <= step:
        raise
      _log.info("Index version %s was overtaken by a newer one", version)
      return []
    except FileExistsError:
      manifest = None  # Another was faster than the look at what there is.
    except Exception:
      # A full disk gets its space back.
      Draft(directory, plan, self._leases, self._observer).abandon()
      raise
    self.clean()
    if manifest is None:
      return []
    seconds = manifest.phase_seconds.items()
    _log.info(
      "Published index version %s: %d passages, recall@10 %.3f (%s)",
      version,
      manifest.num_passages,
      manifest.checks["recall_at_10"],
      ", ".join(f"{phase} {secs:.1f} s" for phase, secs in seconds),
    )
    return [version]

  def _has(self, step: int) -> bool:
    return step in checkpoints.steps(self.workdir)

  def _directory(self, version: str) -> epath.Path:
    return store.index_folder(self.workdir) / version

  def _plan(self, step: int, version: str) -> tuple[DraftPlan, Params]:
    """Returns what is to be made, from the checkpoint or from the draft.

    A draft knows all that the checkpoint did: the trainer may delete that.
    """
    if not self._has(step):
      directory = self._directory(version)
      if plan := drafts.read_plan(directory):
        return plan, drafts.read_params(directory)
    retriever, committed_at = self._restore(step)
    plan = DraftPlan(
      step=step,
      checkpoint_unix_secs=committed_at,
      embedder_hash=embedder_hash(self.run, retriever),
      num_passages=len(self._corpus),
      shard_passages=self.run.refresh.shard_passages,
    )
    return plan, retriever

  def _make(
    self, draft: Draft, retriever: Params, clock: "_Clock"
  ) -> Manifest | None:
    """Embeds what is missing and finishes the version, or sees it finished."""
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
      (self.workdir, *self._start()), self._corpus, draft.plan.embedder_hash
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
    source = self.run.init.retriever
    with contextlib.suppress(FileNotFoundError):
      if source and (named := workdirs.named_by(source)):
        yield named[0]

  def _damaged(self, draft: Draft) -> bool:
    damaged = draft.drop_damaged()
    if damaged:
      _log.warning("Embedding again, as they are damaged: %s", damaged)
    return bool(damaged)

  def _finish(
    self, draft: Draft, retriever: Params, clock: "_Clock"
  ) -> Manifest | None:
    """Builds the searcher over all shards, and publishes if it holds good."""
    directory, plan, shards = draft.directory, draft.plan, draft.shards()
    embeddings = Embeddings(
      [np.load(draft.local / shard.path, mmap_mode="r") for shard in shards]
    )
    params = describe_file(directory, directory / drafts.PARAMS_FILE)
    draft.copy.fetch([params], checksums=False)
    passages = draft.add_array(PASSAGES_FILE, self._corpus.passage_hashes)
    folder = draft.local_folder("scann")
    shutil.rmtree(folder, ignore_errors=True)
    parameters = self._build_searcher(embeddings, folder)
    manifest = Manifest(
      version=directory.name,
      step=plan.step,
      checkpoint_unix_secs=plan.checkpoint_unix_secs,
      corpus_fingerprint=self._corpus.fingerprint,
      tokenizer_fingerprint=self._corpus.tokenizer_fingerprint,
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
      draft.local, manifest, self._corpus, self.run.retrieval
    )
    checks = verify(
      opened.index,
      opened.embeddings,
      None
      if self._given and not self._given.reproducible
      else lambda ids: self._embedder.embed(retriever, ids),
      shape=(len(self._corpus), self.run.embedder.dim),
      min_recall=self.run.refresh.min_recall_at_10,
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

  def _restore(self, step: int) -> tuple[Params, float]:
    """Returns the retriever's parameters and when they were committed.

    If the trainer has deleted the checkpoint, they are those of its index over
    a former corpus.

    Raises:
      FileNotFoundError: the trainer deleted the checkpoint, if only while it
        was being read.
    """
    if not self._has(step):
      for name in store.list_versions(self.workdir):
        if store.step_of(name) == step:
          manifest = Manifest.read(self._directory(name))
          retriever = drafts.read_params(self._directory(name))
          return retriever, manifest.checkpoint_unix_secs
    path = checkpoints.folder(self.workdir) / str(step)
    try:
      retriever = checkpoints.restore_params(self.workdir, step, "retriever")
      return retriever, checkpoints.committed_at(self.workdir, step)
    except Exception as error:
      time.sleep(DELETION_SECONDS)
      if self._has(step):
        raise
      raise FileNotFoundError(
        f"{path} was deleted while it was read."
      ) from error

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
    if self.run.retrieval.backend != "scann":
      return {}
    index = build_scann(embeddings, self.run.retrieval.scann)
    index.save(folder)
    return dataclasses.asdict(index.parameters)

  def clean(self) -> None:
    """Removes what nobody needs: files, and whole versions."""
    for version in self._corpora.known(store.list_versions(self.workdir)):
      drafts.tidy(self._directory(version), self._observer)
    needed = retention.needed_by_checkpoints(self.workdir)
    if needed is None:
      return  # The next time it does.
    keep = self.run.refresh.keep_versions
    for version in retention.prune(
      self.workdir, self._corpora, keep, needed, self._observer
    ):
      _log.info("Deleted index version %s", version)


class _Clock:
  """Wall time by phase."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}
    self._since = time.perf_counter()

  def lap(self, phase: str) -> None:
    now = time.perf_counter()
    self.seconds[phase] = now - self._since
    self._since = now
