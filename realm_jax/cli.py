# SPDX-License-Identifier: Apache-2.0
"""`realm <command> --flag=value …`: what one process of a job runs."""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging

from realm_jax.commands import asking, corpora, models, scoring, training
from realm_jax.commands.command import Command, parse_flags

FLAGS = flags.FLAGS

COMMANDS = {
  **corpora.COMMANDS,
  **models.COMMANDS,
  **training.COMMANDS,
  **scoring.COMMANDS,
  **asking.COMMANDS,
}


def _usage() -> str:
  lines = ["usage: realm <command> --flag=value …", ""]
  lines += [f"  {name:15} {c.summary}" for name, c in COMMANDS.items()]
  lines += ["", "realm <command> --help lists a command's flags."]
  return "\n".join(lines)


def main() -> None:
  """Runs a command; the exit code is 0, 1 (failed), 2 (usage) or 75.

  75 means that training stopped on SIGTERM after saving.
  """
  name = sys.argv[1] if len(sys.argv) > 1 else ""
  if name in ("-h", "--help", "help"):
    print(_usage())
    return
  if name not in COMMANDS:
    print(_usage(), file=sys.stderr)
    sys.exit(2)
  command = COMMANDS[name]
  others = set(FLAGS)
  command.define_flags()
  own = set(FLAGS) - others
  usage = f"usage: realm {name} --flag=value …\n\n  {command.summary}"
  app.run(
    lambda argv: _guarded(name, command, argv[1:]),
    argv=[f"realm {name}", *sys.argv[2:]],
    flags_parser=lambda argv: parse_flags(argv, usage, own),
  )


def _guarded(name: str, command: Command, args: list[str]) -> int:
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(
    absl_logging.DEBUG if FLAGS.verbosity > 0 else absl_logging.ERROR
  )
  logging.getLogger("realm_jax").setLevel(logging.INFO)
  if command.computes:
    from realm_jax import allocator

    allocator.keep_freed_memory()
  try:
    return command.run(args)
  except (ValueError, OSError, ImportError) as error:
    if FLAGS.verbosity > 0:
      raise
    print(f"realm {name}: {error}", file=sys.stderr)
    print("(--verbosity=1 shows the traceback)", file=sys.stderr)
    return 1


if __name__ == "__main__":
  main()
