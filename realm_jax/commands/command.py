# SPDX-License-Identifier: Apache-2.0
"""What a command is, and what several have in common."""

from collections.abc import Callable, Sequence
import dataclasses

from absl import flags
from ml_collections import config_flags


@dataclasses.dataclass(frozen=True)
class Command:
  """One command: its flags are defined only when it is the one asked for."""

  summary: str
  define_flags: Callable[[], None]
  run: Callable[[list[str]], int]
  computes: bool = False  # By JAX, batch after batch.


def workdir_flag() -> None:
  """Defines --workdir, of a run."""
  flags.DEFINE_string("workdir", None, "The run's directory.", required=True)


def config_flag(what: str) -> None:
  """Defines --config, and the flags of its fields; `what` is for people."""
  config_flags.DEFINE_config_file("config", None, what)
  flags.mark_flag_as_required("config")


def searched_corpus_flag() -> None:
  """Defines --corpus, which is searched in place of the run's."""
  flags.DEFINE_string("corpus", "", "Search this corpus, not the run's.")


def read_flag() -> None:
  """Defines --read: how many passages a reader reads."""
  flags.DEFINE_integer(
    "read",
    0,
    "Passages to read for each question, more than in training perhaps; 0 for "
    "openqa.read.",
    lower_bound=0,
  )


def json_flag() -> None:
  """Defines --json, for programs."""
  flags.DEFINE_bool("json", False, "Print JSON instead of a page of text.")


def process_flags(
  what: str, number: int | None = 1, process: int | None = 0
) -> None:
  """Defines --num_processes and --process_id, with their defaults."""
  flags.DEFINE_integer(
    "num_processes", number, f"How many processes {what}.", lower_bound=1
  )
  flags.DEFINE_integer(
    "process_id", process, "Which of them this one is, from 0.", lower_bound=0
  )


def no_more(args: Sequence[str]) -> None:
  """Raises ValueError if there are arguments that are no flags."""
  if args:
    raise ValueError(f"Unknown arguments {list(args)}; flags start with --.")
