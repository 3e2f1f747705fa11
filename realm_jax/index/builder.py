# SPDX-License-Identifier: Apache-2.0
"""The index builder: a job beside the trainer, that may die at any moment.

It reads checkpoints and writes index versions; all that it knows lies in
those two directories, so a restarted builder goes on where they say, and
several builders share the work. A version that is begun is finished, though a
newer checkpoint may come meanwhile: a builder that always turned to the newest
might never publish any.
"""

import logging
import os
import time

from etils import epath

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.index import drafts, publish, retention, store
from realm_jax.index.agenda import Agenda
from realm_jax.index.corpora import open_corpora
from realm_jax.index.drafts import Draft, DraftPlan
from realm_jax.index.lease import LeaseObserver, Leases
from realm_jax.index.manifest import Manifest, embedder_hash
from realm_jax.index.verify import VersionRefused
from realm_jax.index.version_maker import (
  GivenVectors,
  PhaseClock,
  VersionMaker,
)
from realm_jax.shapes import Params

_log = logging.getLogger(__name__)
# A checkpoint that could not be read and is still there after so long is
# damaged; until then it may be half deleted.
DELETION_SECONDS = 2.0


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
    self._poll_seconds = poll_seconds
    self._corpora = open_corpora(workdir, run, corpus)
    self._tokenizer = load_tokenizer(run.data.tokenizer)
    self._maker = self._maker_over(self._corpora.open(self._corpora.moves()[0]))
    self._leases, self._observer = leases, LeaseObserver()
    self.agenda = Agenda(workdir, run, self._corpora, self._observer)

  def _maker_over(self, corpus: PassageCorpus) -> VersionMaker:
    return VersionMaker(
      self.workdir,
      self.run,
      corpus,
      self._tokenizer,
      self._given,
      self._poll_seconds,
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
    if corpus is not self._maker.corpus:
      self._maker = self._maker_over(corpus)
    publish.check_newest(self.workdir, corpus.fingerprint, step)
    clock = PhaseClock()
    plan, retriever = self._plan(step, version)
    clock.lap("restore")
    directory = self._directory(version)
    try:
      draft = drafts.begin(
        directory, plan, retriever, self._leases, self._observer
      )
      with draft.copy.in_use():
        manifest = self._maker.make(draft, retriever, clock)
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
      num_passages=len(self._maker.corpus),
      shard_passages=self.run.refresh.shard_passages,
    )
    return plan, retriever

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
