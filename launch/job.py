# SPDX-License-Identifier: Apache-2.0
"""What a job is, to every launcher: one run, its trainers and its builders."""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import re

from absl import flags
from ml_collections import config_flags

from launch.processes import realm
from realm_jax import config, files
from realm_jax.commands.command import no_such_setting
from realm_jax.commands.training import trainer_flags

_LONGEST_NAME = 40  # So that a host's name, made of it, is below 63.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One run: a trainer on each of some hosts, with builders beside them."""

  config: str  # An experiment's file, with its argument.
  workdir: str
  overrides: tuple[str, ...] = ()  # Flags of `realm train`: --config.x=y, …
  hosts: int = 1  # With one trainer process each.
  builders: int = 1  # That share the work; 0 where nothing is searched.
  python: str = "python"  # On the hosts, with realm_jax installed.
  name: str = ""

  def __post_init__(self) -> None:
    for text in (self.config, self.workdir, self.python, *self.overrides):
      # No quoting survives all the ways that a command takes to a host.
      if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} has a line break or a control character.")
    if not re.fullmatch(rf"[a-z][a-z0-9-]{{0,{_LONGEST_NAME - 1}}}", self.name):
      raise ValueError(
        f"A job's name has up to {_LONGEST_NAME} letters a-z, digits and "
        f"dashes, and begins with a letter; got {self.name!r}. Give --name."
      )

  def trainer(self) -> list[str]:
    """Returns the command of a trainer; the cluster says which it is."""
    command = realm("train", config=self.config, workdir=self.workdir)
    return [self.python, *command[1:], *self.overrides]

  def builder(self) -> list[str]:
    """Returns the command of a builder, which ends after the training."""
    command = realm("build-index", workdir=self.workdir)
    return [self.python, *command[1:], "--watch"]


class Parser(argparse.ArgumentParser):
  """Takes a launcher's flags; what it does not know goes to `realm train`."""

  def __init__(self, program: str, description: str, *, python: str) -> None:
    """Defines the flags that all launchers have.

    Args:
      program: the module, as in `python -m launch.slurm`.
      description: for people.
      python: of the hosts, by default.
    """
    super().__init__(
      prog=f"python -m {program}",
      description=description,
      epilog="Any other flag goes to `realm train`, such as "
      "--config.batch_size=64.",
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.add_argument(
      "--config", required=True, help="The experiment's file, with argument."
    )
    self.add_argument(
      "--workdir",
      required=True,
      help="The run's directory, which all hosts see under this name, or a "
      "gs:// URL.",
    )
    self.add_argument(
      "--hosts", type=count(1), default=1, help="Trainers, one a host."
    )
    self.add_argument(
      "--builders",
      type=count(0),
      default=1,
      help="Index builders, one a host; none are started where the stage "
      "searches no index.",
    )
    self.add_argument(
      "--name", default="", help="Of the job; by default the workdir's."
    )
    self.add_argument(
      "--python",
      default=python,
      help="The hosts' interpreter, with realm_jax installed (%(default)s).",
    )
    self.add_argument(
      "--max_restarts",
      type=count(0),
      default=3,
      help="After failures; preemptions do not count (%(default)s).",
    )
    self.add_argument(
      "--dry-run",
      "--dry_run",
      action="store_true",
      help="Print what would be submitted, and submit nothing.",
    )

  def parse_job(self, argv: Sequence[str]) -> tuple[argparse.Namespace, Job]:
    """Returns all flags, and the job that they say.

    Raises:
      SystemExit: a flag or the config is wrong; says what.
    """
    given, overrides = self.parse_known_args(argv)
    try:
      run = _load(given.config, overrides)
      job = Job(
        config=given.config,
        workdir=given.workdir,
        overrides=tuple(overrides),
        hosts=given.hosts,
        builders=given.builders if run.searches else 0,
        python=given.python,
        name=given.name or _name(given.workdir),
      )
      if run.batch_size % job.hosts:
        raise ValueError(
          f"batch_size ({run.batch_size}) does not divide over "
          f"{job.hosts} hosts."
        )
    except (ValueError, OSError, ImportError, flags.Error) as error:
      self.error(str(error))
    except AttributeError as error:
      self.error(no_such_setting(error))
    return given, job


def count(least: int) -> Callable[[str], int]:
  """Returns what reads a flag that is a number, and not below `least`."""

  def read(text: str) -> int:
    if int(text) < least:
      raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
    return int(text)

  return read


def log_folder(job: Job, given: str) -> pathlib.Path:
  """Returns where a job's logs go: where a flag says, or in the workdir.

  Raises:
    ValueError: the workdir is a URL, where no line can be appended.
  """
  if not given and files.is_url(job.workdir):
    raise ValueError(
      f"Logs cannot be appended to in {job.workdir}: give --logs, a folder."
    )
  return pathlib.Path(given or pathlib.Path(job.workdir, "logs")).absolute()


def _load(name: str, overrides: Sequence[str]) -> config.RunConfig:
  """Returns the config as a trainer will read it."""
  for flag in overrides:
    if not flag.startswith("--"):
      raise ValueError(f"Unknown argument {flag!r}; flags are --name=value.")
  line = ["realm train", f"--config={name}", *overrides]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", None, flag_values=values, sys_argv=line
  )
  trainer_flags(values)
  values(line)
  return config.parse(values.config)


def _name(workdir: str) -> str:
  last = workdir.rstrip("/").rpartition("/")[2].lower()
  name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")
  return (name if name[:1].isalpha() else f"realm-{name}")[:_LONGEST_NAME]
