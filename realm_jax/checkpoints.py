# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a workdir: the trainer writes them, other jobs read them.

    workdir/checkpoints/<step>/state   parameters, optimiser state, step
                              /run     JSON: data position, index versions

Orbax writes a step under a temporary name and commits it last, so a reader
never sees half of one.
"""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from realm_jax import files
from realm_jax.shapes import Params

TRAINING_DONE = "TRAINING_DONE"  # Marker in the workdir: no step will follow.
_FOLDER = "checkpoints"
_committed: set[epath.Path] = set()  # Seen by this process.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPosition:
  """What a checkpoint holds beside arrays."""

  # The data iterator's state right after the batch of this step.
  data_state: dict[str, Any]
  # (first step, index version), ascending: which index served which step.
  index_versions: Sequence[tuple[int, str]] = ()


def folder(workdir: epath.PathLike) -> epath.Path:
  """Returns the directory that holds the steps, as an absolute path.

  Raises:
    ValueError: `workdir` is the URL of a store that cannot hold them.
  """
  path = files.absolute(workdir)  # Orbax takes no other.
  if files.is_url(path) and not path.startswith("gs://"):
    # Orbax would write the arrays to a local folder of that name.
    raise ValueError(
      f"workdir={path!r} cannot hold checkpoints: of object stores, only "
      "gs:// can. Use a path or a gs:// URL."
    )
  return epath.Path(path) / _FOLDER


def steps(workdir: epath.PathLike) -> list[int]:
  """Returns the committed steps, ascending; empty where there are none."""
  root = folder(workdir)
  if not root.exists():
    return []
  return sorted(
    int(path.name)
    for path in root.iterdir()
    if path.name.isdigit() and _is_committed(path)
  )


def _is_committed(path: epath.Path) -> bool:
  # Orbax asks a store several times a step, and the answer stays yes.
  if path not in _committed and ocp.utils.is_checkpoint_finalized(path):
    _committed.add(path)
  return path in _committed


def newest_step(workdir: epath.PathLike) -> int:
  """Returns the newest committed step.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
  """
  found = steps(workdir)
  if not found:
    raise FileNotFoundError(
      f"{folder(workdir)} holds no checkpoint. Run `realm train` with this "
      "--workdir first."
    )
  return found[-1]


def restore_params(
  workdir: epath.PathLike, step: int, subtree: str
) -> dict[str, Any]:
  """Reads `params[subtree]` alone, as NumPy arrays.

  Raises:
    FileNotFoundError: there is no such step.
    ValueError: the checkpoint has no such subtree.
  """
  path = folder(workdir) / str(step) / "state"
  if not path.exists():
    raise FileNotFoundError(
      f"{path} does not exist. Steps there are: {steps(workdir)}."
    )
  checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
  params = checkpointer.metadata(path).item_metadata.tree["params"]
  if subtree not in params:
    raise ValueError(
      f"Checkpoint {path} has no parameters '{subtree}', only "
      f"{sorted(params)}: it comes from another training stage."
    )
  wanted = {"params": {subtree: params[subtree]}}
  as_numpy = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
  )
  restored = checkpointer.restore(
    path,
    args=ocp.args.PyTreeRestore(
      item=wanted, restore_args=as_numpy, partial_restore=True
    ),
  )
  return restored["params"][subtree]


def metadata(workdir: epath.PathLike, step: int) -> dict[str, Any]:
  """Reads a step's `RunPosition` as a dict, without its arrays."""
  checkpointer = ocp.Checkpointer(ocp.JsonCheckpointHandler())
  return checkpointer.restore(folder(workdir) / str(step) / "run")


def committed_at(workdir: epath.PathLike, step: int) -> float:
  """Returns when a step was committed, in Unix seconds."""
  # Not by the time of its directory: a store has none.
  path = folder(workdir) / str(step) / "_CHECKPOINT_METADATA"
  return json.loads(path.read_text())["commit_timestamp_nsecs"] / 1e9


def check_same_architecture(
  restored: Params, wanted: Params, source: str
) -> None:
  """Raises ValueError unless two trees have the same names and shapes.

  The message names up to five leaves that differ, with both shapes.
  """
  have, want = _leaf_shapes(restored), _leaf_shapes(wanted)
  differing = [
    f"{name}: {have.get(name, 'absent')} there, {want.get(name, 'absent')} here"
    for name in sorted(have.keys() | want.keys())
    if have.get(name) != want.get(name)
  ]
  if differing:
    listed = "; ".join(differing[:5])
    raise ValueError(
      f"{source} holds another architecture than the config asks for: "
      f"{len(differing)} arrays differ ({listed}). Set the config's sizes to "
      "the checkpoint's, or start from another one."
    )


def _leaf_shapes(tree: Params) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


class CheckpointWriter:
  """Saves the trainer's state without stopping it; keeps the newest n."""

  def __init__(self, workdir: epath.PathLike, keep: int) -> None:
    self._workdir = workdir
    self._manager = ocp.CheckpointManager(
      folder(workdir),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=True,  # Of a trainer killed while it saved.
      ),
      item_names=("state", "run"),
    )

  def __enter__(self) -> "CheckpointWriter":
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.close()

  def save(self, step: int, state: Any, position: RunPosition) -> None:
    """Copies the state off the devices and writes it in the background.

    Raises:
      OSError: an earlier write failed (a full disk, for one).
    """
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        run=ocp.args.JsonSave(dataclasses.asdict(position)),
      ),
      force=True,
    )

  def wait(self) -> None:
    """Returns when every save is committed; raises what a write raised."""
    self._manager.wait_until_finished()

  def restore_newest(
    self, abstract_state: Any
  ) -> tuple[Any, RunPosition] | None:
    """Returns the newest state, laid out as asked, or None if there is none.

    Args:
      abstract_state: ShapeDtypeStructs with shardings.

    Raises:
      ValueError: the checkpoint holds another architecture.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    path = folder(self._workdir) / str(step)
    saved = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).metadata(
      path / "state"
    )
    check_same_architecture(
      saved.item_metadata.tree["params"], abstract_state.params, str(path)
    )
    items = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        run=ocp.args.JsonRestore(),
      ),
    )
    run = items["run"]
    versions = tuple((int(s), str(v)) for s, v in run["index_versions"])
    return items["state"], RunPosition(
      data_state=run["data_state"], index_versions=versions
    )
