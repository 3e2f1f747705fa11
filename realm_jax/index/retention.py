# SPDX-License-Identifier: Apache-2.0
"""Which versions stay: the newest, and those that a run or a reader needs."""

from collections.abc import Collection
import contextlib
import logging

from etils import epath

from realm_jax import checkpoints
from realm_jax.data.corpus import PassageCorpus
from realm_jax.index import drafts
from realm_jax.index.lease import LeaseObserver
from realm_jax.index.store import (
  index_folder,
  list_drafts,
  list_versions,
  readers_folder,
  step_of,
)
from realm_jax.index.swap import VersionSchedule

_log = logging.getLogger(__name__)
# Trainers use a version until they have opened the next one.
_FEWEST_KEPT = 2


def needed_by_checkpoints(workdir: epath.PathLike) -> set[str] | None:
  """Returns the versions that a resumed run would search.

  None where a checkpoint cannot be read: most likely it was deleted just now,
  and until that is sure nothing may be deleted.
  """
  needed: set[str] = set()
  for step in checkpoints.steps(workdir):
    try:
      entries = checkpoints.metadata(workdir, step)["index_versions"]
    except (OSError, ValueError) as error:
      _log.info("Nothing pruned, checkpoint %d is unread: %s", step, error)
      return None
    schedule = VersionSchedule([(int(s), str(v)) for s, v in entries])
    needed.update(schedule.needed_from(step))
  return needed


def readers(
  workdir: epath.PathLike, version: str, observer: LeaseObserver
) -> list[str]:
  """Returns the living holders of leases on a version; clears dead ones."""
  folder = readers_folder(workdir, version)
  observer.clear_dead(folder)
  return observer.live(folder)


def prune(
  workdir: epath.PathLike,
  corpus: PassageCorpus,
  keep: int,
  needed: Collection[str],
  observer: LeaseObserver,
) -> list[str]:
  """Deletes a corpus' versions but the newest `keep` and those `needed`.

  What a living reader has open stays, too. Drafts that a newer version has
  overtaken go, as none may be published any more.

  Args:
    workdir: whose versions they are.
    corpus: versions of others are left alone.
    keep: how many of the newest stay.
    needed: by checkpoints.
    observer: knows which leases are alive.

  Returns:
    What was deleted.
  """
  published = list_versions(workdir, corpus)
  keep = max(keep, _FEWEST_KEPT)
  doomed = [
    name
    for name in published[:-keep]
    if name not in needed and not readers(workdir, name, observer)
  ]
  doomed += [
    name
    for name in list_drafts(workdir, corpus)
    if step_of(name) < step_of(published[-1])
    and not drafts.is_live(index_folder(workdir) / name, observer)
  ]
  for version in doomed:
    drafts.discard(index_folder(workdir) / version)
  _clear_readers(workdir, observer)
  return doomed


def _clear_readers(workdir: epath.PathLike, observer: LeaseObserver) -> None:
  """Removes what readers left that were killed."""
  for folder in (index_folder(workdir) / "readers").glob("*"):
    observer.clear_dead(folder)
    with contextlib.suppress(OSError):  # Not empty: it is being read.
      folder.rmdir()
