# SPDX-License-Identifier: Apache-2.0
"""`realm use-corpus`: a run goes over to another corpus, without a restart."""

import os

from etils import epath

from realm_jax import checkpoints, files
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import store
from realm_jax.index.corpora import Corpora, Move, open_corpora, write_move
from realm_jax.index.scann_backend import scann_parameters


def use_corpus(
  workdir: epath.PathLike,
  directory: str | os.PathLike[str],
  from_step: int | None = None,
) -> Move:
  """Writes down that indexes are over another corpus; checks that first.

  The text to train on stays that of the run's own corpus.

  Args:
    workdir: of a run with a checkpoint, training or not.
    directory: of the corpus. It must stay where it is.
    from_step: the checkpoint whose index is the first over the corpus; None
      for as soon as may be. Under async and never that is the newest one
      indexed: its index is made again, and only what changed is embedded.
      Under lockstep it is the first refresh step of which no job can have
      asked yet over which corpus it is.

  Raises:
    FileNotFoundError: there is no such run, checkpoint or corpus.
    ValueError: the corpus cannot serve the run, or `from_step` is too early.
  """
  run = workdirs.load(workdir)
  checkpoints.newest_step(workdir)  # There is one.
  corpora = open_corpora(workdir, run)
  corpus = PassageCorpus.open(directory)
  moves = corpora.moves()
  _check_fits(run, corpora.open(moves[0]), corpus)
  if corpus.fingerprint == moves[-1].fingerprint:
    raise ValueError(
      f"{workdir} uses this corpus already, from checkpoint "
      f"{moves[-1].from_step} on."
    )
  move = Move(
    number=len(moves),
    from_step=_first_step(workdir, run, corpora, from_step),
    directory=files.absolute(corpus.directory),
    fingerprint=corpus.fingerprint,
  )
  write_move(workdir, move)
  return move


def _check_fits(
  run: RunConfig, own: PassageCorpus, corpus: PassageCorpus
) -> None:
  """Raises ValueError where the corpus would fail the trainer or builder."""
  if not run.has_retriever:
    raise ValueError(
      f"A run of stage {run.stage!r} without a retriever of vectors has no "
      "index, over any corpus."
    )
  if corpus.tokenizer_fingerprint != own.tokenizer_fingerprint:
    raise ValueError(
      f"{corpus.directory} was made with the tokenizer "
      f"{corpus.tokenizer_fingerprint[:12]}, and the run's corpus with "
      f"{own.tokenizer_fingerprint[:12]}: prepare it with --tokenizer="
      f"{own.directory}."
    )
  # The shapes of batches were planned for the run's own corpus.
  longest = int(corpus.lengths.max()) + 3
  if longest > own.max_pieces:
    raise ValueError(
      f"{corpus.directory} has a passage of {longest} tokens, and the run's "
      f"corpus none beyond {own.max_pieces}: prepare it with --max_pieces="
      f"{own.max_pieces}."
    )
  found = {"openqa.beam": run.openqa.beam, "dpr.search": run.dpr.search}
  for name, depth in found.items():
    if name.startswith(run.stage) and len(corpus) < depth:
      raise ValueError(
        f"{corpus.directory} has {len(corpus)} passages, and {name} is {depth}."
      )
  if run.retrieval.backend == "scann":
    scann_parameters(len(corpus), run.retrieval.scann)


def _first_step(
  workdir: epath.PathLike,
  run: RunConfig,
  corpora: Corpora,
  asked: int | None,
) -> int:
  """Returns `asked`, or the default, if it may be.

  Raises:
    ValueError: it may not; says what may.
  """
  refresh, last = run.refresh, corpora.moves()[-1].from_step
  done = workdirs.is_done(workdir)
  if refresh.policy != "lockstep":
    serving = corpora.newest(store.list_versions(workdir))
    smallest = last
    default = max(last, store.step_of(serving)) if serving else last
  else:
    newest = checkpoints.newest_step(workdir)
    free = newest if done else _free_refresh(workdir, run, corpora)
    default = smallest = max(last, free)
  step = default if asked is None else asked
  if step < smallest:
    raise ValueError(
      f"--from_step={step} is too early: {smallest} is the first checkpoint "
      "whose corpus is still open."
    )
  if refresh.policy == "lockstep" and not done and not refresh.is_refresh(step):
    raise ValueError(
      f"--from_step={step} is no refresh step, and under refresh.policy="
      f"'lockstep' only those are indexed: take {smallest} or a later one."
    )
  return step


def _free_refresh(
  workdir: epath.PathLike, run: RunConfig, corpora: Corpora
) -> int:
  """Returns the first refresh step whose corpus no job has asked for yet.

  The trainer takes no step that the first missing index is to serve: so no
  checkpoint beyond that step is there, and versions are assigned to no more
  than `lookahead` steps beyond.

  Raises:
    ValueError: none will come.
  """
  refresh = run.refresh
  newest = max(corpora.steps(store.list_versions(workdir)), default=-1)
  missing = refresh.next_refresh(newest)
  if missing is not None:
    ahead = max(refresh.lag_steps, run.retrieval.lookahead)
    free = refresh.next_refresh(missing + ahead)
    if free is not None and free <= run.num_steps:
      return free
  raise ValueError(
    f"No refresh of this run is left for which a move could be in time: the "
    f"newest index is of checkpoint {newest}, and the run ends at "
    f"{run.num_steps}. When it has ended, move it then."
  )
