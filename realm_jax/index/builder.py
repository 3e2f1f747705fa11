# SPDX-License-Identifier: Apache-2.0
"""The index builder: a job beside the trainer, that may die at any moment.

It reads checkpoints and writes index versions; all that it knows lies in
those two directories, so a restarted builder goes on where they say.
"""

import dataclasses
import logging
import os
import pathlib
import time

from etils import epath
import numpy as np
import rich.console
import rich.progress

from realm_jax import checkpoints, sharding
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.index import publish, store
from realm_jax.index.embed import CorpusEmbedder
from realm_jax.index.embeddings import Embeddings
from realm_jax.index.exact import ExactIndex
from realm_jax.index.manifest import (
  Manifest,
  describe_files,
  library_versions,
)
from realm_jax.index.policy import next_step
from realm_jax.index.scann_backend import ScannIndex, build_scann
from realm_jax.index.swap import VersionSchedule
from realm_jax.index.verify import VersionRefused, verify
from realm_jax.shapes import Params

_log = logging.getLogger(__name__)
# Trainers use a version until they have opened the next one.
_FEWEST_KEPT = 2
# A checkpoint that could not be read and is still there after so long is
# damaged; until then it may be half deleted.
DELETION_SECONDS = 2.0


def build_index(
  workdir: epath.PathLike,
  *,
  watch: bool = False,
  corpus: str = "",
  poll_seconds: float = 0.5,
) -> list[str]:
  """Builds the newest checkpoint's index, or with `watch` one after another.

  `watch` follows refresh.policy: under lockstep every refresh checkpoint, in
  order; under async the newest that there is; under never the first; always
  the last one of a finished run, and then it ends.

  Args:
    workdir: of the trainer; with `watch`, it may not have begun yet.
    watch: go on until TRAINING_DONE.
    corpus: directory of a corpus to index instead of the run's own.
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
      f"--watch serves a trainer, and that reads its own corpus: corpus="
      f"{corpus!r} can be indexed without --watch only."
    )
  if watch:
    _wait_for_config(workdir, poll_seconds)
  builder = _Builder(workdir, _load_config(workdir), corpus)
  if watch:
    return _watch(builder, poll_seconds)
  return builder.build(checkpoints.newest_step(workdir))


def _wait_for_config(workdir: epath.PathLike, poll_seconds: float) -> None:
  path = pathlib.Path(workdir) / workdirs.CONFIG_FILE
  if not path.exists():
    _log.info("Waiting for the trainer to write %s", path)
  while not path.exists():
    time.sleep(poll_seconds)


def _load_config(workdir: epath.PathLike) -> RunConfig:
  run = workdirs.load(workdir)
  if run.stage == "mlm":
    raise ValueError(
      f"{os.fspath(workdir)} is a run of stage 'mlm', which has no retriever "
      "and so no index."
    )
  return run


def _watch(builder: "_Builder", poll_seconds: float) -> list[str]:
  published = []
  while True:
    # Before the checkpoints are listed: what is listed then is all there is.
    done = builder.training_done()
    step = next_step(
      checkpoints.steps(builder.workdir),
      builder.handled_steps(),
      builder.run.refresh,
      done=done,
    )
    if step is not None:
      try:
        published += builder.build(step)
      except VersionRefused as refused:
        _log.error("Index of checkpoint %d refused: %s", step, refused)
      except FileNotFoundError:
        if builder.run.refresh.policy == "lockstep" or builder.has(step):
          raise
        _log.info("Checkpoint %d went while it was read", step)
    elif done:
      builder.check_last()
      return published
    else:
      time.sleep(poll_seconds)


class _Builder:
  """Builds the versions of one workdir and one corpus."""

  def __init__(
    self, workdir: epath.PathLike, run: RunConfig, corpus: str
  ) -> None:
    self.workdir, self.run = workdir, run
    self._corpus = PassageCorpus.open(corpus or run.data.corpus)
    self._embedder = CorpusEmbedder(
      run,
      self._corpus,
      load_tokenizer(run.data.tokenizer),
      sharding.local_mesh(),
    )

  def training_done(self) -> bool:
    return (pathlib.Path(self.workdir) / checkpoints.TRAINING_DONE).exists()

  def has(self, step: int) -> bool:
    return step in checkpoints.steps(self.workdir)

  def handled_steps(self) -> list[int]:
    versions = store.list_versions(self.workdir, self._corpus)
    refused = publish.list_refused(self.workdir, self._corpus)
    return sorted(store.step_of(name) for name in (*versions, *refused))

  def check_last(self) -> None:
    """Raises VersionRefused if the last version failed its checks."""
    for step in self.handled_steps()[-1:]:
      version = store.version_name(step, self._corpus.fingerprint)
      if reason := publish.refusal(self.workdir, version):
        raise VersionRefused(f"Index version {version}: {reason}", {})

  def build(self, step: int) -> list[str]:
    """Publishes the version of a checkpoint, unless it is there already."""
    version = store.version_name(step, self._corpus.fingerprint)
    if version in store.list_versions(self.workdir):
      _log.info("Index version %s is published already", version)
      return []
    publish.check_newest(self.workdir, self._corpus.fingerprint, step)
    directory = publish.begin_draft(self.workdir, version)
    try:
      manifest = self._fill(directory, step)
      publish.publish(directory, manifest)
    except VersionRefused as refused:
      publish.refuse(directory, str(refused), refused.checks)
      raise
    except BaseException:
      publish.discard(directory)  # A full disk gets its space back.
      raise
    seconds = manifest.phase_seconds.items()
    _log.info(
      "Published index version %s: %d passages, recall@10 %.3f (%s)",
      version,
      manifest.num_passages,
      manifest.checks["recall_at_10"],
      ", ".join(f"{phase} {secs:.1f} s" for phase, secs in seconds),
    )
    self._prune()
    return [version]

  def _fill(self, directory: pathlib.Path, step: int) -> Manifest:
    """Writes and verifies a version; returns the manifest to commit."""
    clock = _Clock()
    retriever, committed_at = self._restore(step)
    clock.lap("restore")
    embs = self._embed(retriever, directory.name)
    clock.lap("embed")
    index, parameters = self._index(embs)
    shards = publish.write_draft(directory, embs, retriever, index)
    manifest = Manifest(
      version=directory.name,
      step=step,
      checkpoint_unix_secs=committed_at,
      corpus_fingerprint=self._corpus.fingerprint,
      tokenizer_fingerprint=self._corpus.tokenizer_fingerprint,
      num_passages=len(embs),
      dim=embs.shape[1],
      backend=self.run.retrieval.backend,
      scann=parameters,
      shards=shards,
      files=describe_files(directory),
      libraries=library_versions(),
    )
    clock.lap("index")
    del embs, index  # What is verified is what a reader would open.
    opened = store.open_files(directory, manifest)
    checks = verify(
      opened.index,
      opened.embeddings,
      lambda ids: self._embedder.embed(retriever, ids),
      shape=(len(self._corpus), self.run.embedder.dim),
      min_recall=self.run.refresh.min_recall_at_10,
      seed=step,
    )
    clock.lap("verify")
    return dataclasses.replace(
      manifest,
      checks=checks,
      phase_seconds=clock.seconds,
      published_unix_secs=time.time(),
    )

  def _restore(self, step: int) -> tuple[Params, float]:
    """Returns the retriever's parameters and when they were committed.

    Raises:
      FileNotFoundError: the trainer deleted the checkpoint, if only while it
        was being read.
    """
    path = checkpoints.folder(self.workdir) / str(step)
    try:
      retriever = checkpoints.restore_params(self.workdir, step, "retriever")
      return retriever, float(path.stat().mtime)
    except Exception as error:
      time.sleep(DELETION_SECONDS)
      if self.has(step):
        raise
      raise FileNotFoundError(
        f"{path} was deleted while it was read."
      ) from error

  def _embed(self, retriever: Params, version: str) -> np.ndarray:
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=console,
      transient=True,
      disable=not console.is_terminal,
    ) as bar:
      task = bar.add_task(f"Embed {version}", total=len(self._corpus))
      return self._embedder.embed(
        retriever, progress=lambda rows: bar.advance(task, rows)
      )

  def _index(
    self, embs: np.ndarray
  ) -> tuple[ScannIndex | ExactIndex, dict[str, int]]:
    if self.run.retrieval.backend == "exact":
      return ExactIndex(Embeddings([embs])), {}
    index = build_scann(Embeddings([embs]), self.run.retrieval.scann)
    return index, dataclasses.asdict(index.parameters)

  def _prune(self) -> None:
    needed: set[str] = set()
    for step in checkpoints.steps(self.workdir):
      try:
        entries = checkpoints.metadata(self.workdir, step)["index_versions"]
      except (OSError, ValueError) as error:
        # Most likely deleted just now. The next version prunes again.
        _log.info("Nothing pruned, checkpoint %d is unread: %s", step, error)
        return
      schedule = VersionSchedule([(int(s), str(v)) for s, v in entries])
      needed.update(schedule.needed_from(step))
    keep = max(self.run.refresh.keep_versions, _FEWEST_KEPT)
    for version in publish.prune(self.workdir, self._corpus, keep, needed):
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
