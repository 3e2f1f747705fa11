# SPDX-License-Identifier: Apache-2.0
"""A run's directory: one config for its whole life."""

from collections.abc import Collection

from etils import epath

from realm_jax import checkpoints, config, files
from realm_jax.config import RunConfig

CONFIG_FILE = "config.json"
# Where the work is done, in what portions, what of it twice: not what it is.
_HOW = ("mesh", "optimizer.accumulate_steps", "remat")


def claim(
  workdir: epath.PathLike, run: RunConfig, may_differ: Collection[str] = ()
) -> None:
  """Writes the resolved config, or checks that a resumed run has the same.

  A run goes on with any number of processes and devices that divides its
  batch, so `mesh`, `optimizer.accumulate_steps` and `remat` (fewer devices may
  need more parts, or to keep less, to have room) may always differ. Results
  then differ by rounding, and by what dropout draws: that goes by place, and
  rows lie elsewhere.

  Args:
    workdir: created if it is not there.
    run: the config asked for.
    may_differ: other dotted keys (or their prefixes) in which it may differ
      from the saved one. All new values are saved.

  Raises:
    ValueError: another key differs; or a run starts anew where another's
      index versions lie.
  """
  path = epath.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  saved_path = path / CONFIG_FILE
  if saved_path.exists() and checkpoints.steps(path):
    changed = config.differences(load(path), run)
    refused = {
      key: values
      for key, values in changed.items()
      if not any(
        key == k or key.startswith(f"{k}.") for k in (*_HOW, *may_differ)
      )
    }
    if refused:
      listed = "; ".join(
        f"{key}: {old!r} saved, {new!r} asked"
        for key, (old, new) in refused.items()
      )
      raise ValueError(
        f"{saved_path} belongs to a run with another config ({listed}). Use "
        "another --workdir, or name these keys in --may_differ."
      )
  left = [name for name in ("index", "corpora") if (path / name).exists()]
  if left and not checkpoints.steps(path):
    raise ValueError(
      f"{path} holds {left} but no checkpoint: what is left of another run. It "
      "would be taken for this run's. Remove the directory, or use another "
      "--workdir."
    )
  files.write_whole(saved_path, config.dumps(run))


def load(workdir: epath.PathLike) -> RunConfig:
  """Reads a workdir's config.

  Raises:
    FileNotFoundError: it is not a workdir.
    ValueError: the file is malformed.
  """
  path = epath.Path(workdir) / CONFIG_FILE
  if not path.exists():
    raise FileNotFoundError(
      f"{path} does not exist: {workdir} is not a run's workdir."
    )
  return config.loads(path.read_text())


def named_by(source: str) -> tuple[epath.Path, int] | None:
  """Splits "workdir@step", as `InitConfig` has them; by default the newest.

  Returns:
    None if no workdir is meant: a Hugging Face folder or a hub's name.

  Raises:
    FileNotFoundError: it has no checkpoint.
  """
  name, _, step = source.partition("@")
  path = epath.Path(name)
  if step:
    return path, int(step)
  if (path / CONFIG_FILE).exists() and not checkpoints.folder(path).exists():
    return None  # A Hugging Face folder.
  if not path.exists():
    return None  # A hub name; who reads it says so if it is none.
  return path, checkpoints.newest_step(path)


def mark_done(workdir: epath.PathLike, step: int) -> None:
  """Says that no checkpoint will follow; the index builder then finishes."""
  path = epath.Path(workdir) / checkpoints.TRAINING_DONE
  path.write_text(f"{step}\n")


def is_done(workdir: epath.PathLike) -> bool:
  """Whether no checkpoint will follow."""
  return (epath.Path(workdir) / checkpoints.TRAINING_DONE).exists()


def unmark_done(workdir: epath.PathLike) -> None:
  """Takes the mark back, for a run that goes on with more steps."""
  (epath.Path(workdir) / checkpoints.TRAINING_DONE).unlink(missing_ok=True)
