# SPDX-License-Identifier: Apache-2.0
"""What a command is, and what several have in common."""

from collections.abc import Callable, Collection, Sequence
import dataclasses
import sys

from absl import flags
from ml_collections import config_flags

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Command:
  """One command: its flags are defined only when it is the one asked for."""

  summary: str
  define_flags: Callable[[], None]
  run: Callable[[list[str]], int]
  computes: bool = False  # By JAX, batch after batch.


_ASKS_FOR_HELP = {"-h", "--help", "-help", "--helpshort", "--helpfull"}


def parse_flags(
  argv: Sequence[str], usage: str, own: Collection[str]
) -> list[str]:
  """Returns what is no flag; tells of all with --help, or what is wrong.

  absl's --help would list the flags of the module that was started, which
  defines none.

  Args:
    argv: the program's name, and its arguments.
    usage: what stands before the flags.
    own: names of the flags to tell of.

  Raises:
    SystemExit: with code 0 after --help, and 2 where a flag is wrong.
  """
  if not _ASKS_FOR_HELP.isdisjoint(argv):
    shown = flags.FlagValues()
    for name in own:
      shown[name] = FLAGS[name]
    print(f"{usage}\n\n{shown.get_help(include_special_flags=False)}")
    sys.exit(0)
  try:
    return FLAGS(argv)
  except flags.Error as error:
    told = str(error)
  except AttributeError as error:
    told = no_such_setting(error)
  print(f"{argv[0]}: {told} (--help lists the flags)", file=sys.stderr)
  sys.exit(2)


def no_such_setting(error: AttributeError) -> str:
  """Returns what is wrong with a flag --config.x: ml_collections' words."""
  cause = error.args[0]
  return f"The config has no {cause.args[0] if cause.args else cause}"


def workdir_flag() -> None:
  """Defines --workdir, of a run."""
  flags.DEFINE_string("workdir", None, "The run's directory.", required=True)


def config_flag(what: str) -> None:
  """Defines --config, and the flags of its fields; `what` is for people."""
  config_flags.DEFINE_config_file(
    "config",
    None,
    f"{what} Each of its settings is a flag, too, such as "
    "--config.batch_size=32.",
  )
  flags.mark_flag_as_required("config")


def searched_corpus_flag() -> None:
  """Defines --corpus, which is searched in place of the run's."""
  flags.DEFINE_string("corpus", "", "Search this corpus, not the run's.")


def read_flag(also: str = "") -> None:
  """Defines --read: how many passages a reader reads, and what it is else."""
  flags.DEFINE_integer(
    "read",
    0,
    "Passages to read for each question, more than in training perhaps"
    f"{also}; 0 for openqa.read.",
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
