# SPDX-License-Identifier: Apache-2.0
"""Runs a `realm` command with a fault in it.

    python -m tests.faulty "<fault>" build-index --workdir=… --watch

A process that is to be killed says "stopped" at the fault, and stands still.
With "<fault>, later" a builder publishes one version before.
"""

import os
import resource
import sys
import time

from realm_jax import cli
from realm_jax.index import drafts, embed, publish, store, version_maker
from realm_jax.train.versions import Versions


def _stop(*_args, **_kwargs):
  print("stopped", flush=True)
  time.sleep(3600)


def _embedding():
  embed.collate.passage_rows = _stop


def _writing_a_shard():
  def half(path, _array):
    path.write_bytes(b"half of a shard")
    _stop()

  drafts.np.save = half


def _after_a_shard():
  added, add = [], drafts.Draft.add

  def add_once(*args):
    if added:
      _stop()
    added.append(add(*args))

  drafts.Draft.add = add_once


def _building_the_searcher():
  version_maker.build_scann = _stop


def _before_the_manifest():
  publish.publish = _stop


def _disk_full():
  """A write that takes a file beyond this fails, as on a full disk."""
  os.dup2(1, 2)  # So that the log does not fail.
  hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))


def _disk_full_writing_the_manifest():
  real = publish.publish

  def publish_without_room(*args):
    _disk_full()
    real(*args)

  publish.publish = publish_without_room


def _opening():
  """Of a version that is swapped in; the first is waited for."""
  real = store.open_version

  def open_version(workdir, version, *args):
    if store.step_of(version) > 0:
      _stop()
    return real(workdir, version, *args)

  store.open_version = open_version


def _swapping():
  real = Versions.swaps

  def swaps(*args):
    for swap in real(*args):
      if swap.first_step > 0:
        _stop()
      yield swap

  Versions.swaps = swaps


def _clock_jumping_back():
  """Every third look at the clock finds it an hour earlier than before."""
  real, looks = time.time, []

  def jumping():
    looks.append(0)
    return real() - 3600.0 * (len(looks) // 3)

  time.time = jumping


FAULTS = {
  # Of a builder, which stops while it is …
  "embedding": _embedding,
  "writing a shard": _writing_a_shard,
  "after a shard": _after_a_shard,
  "building the searcher": _building_the_searcher,
  "before the manifest": _before_the_manifest,
  # … or goes on without room to write.
  "disk full": _disk_full,
  "disk full, writing the manifest": _disk_full_writing_the_manifest,
  # Of a trainer, which stops while it is …
  "opening": _opening,
  "swapping": _swapping,
  # Of either.
  "clock jumping back": _clock_jumping_back,
}


def _after_one_version(fault):
  real = publish.publish

  def publish_once(*args):
    real(*args)
    publish.publish = real
    fault()

  publish.publish = publish_once


if __name__ == "__main__":
  name, later, _ = sys.argv.pop(1).partition(", later")
  (_after_one_version if later else lambda f: f())(FAULTS[name])
  cli.main()
