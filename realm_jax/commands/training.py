# SPDX-License-Identifier: Apache-2.0
"""What trains, and what it needs."""

import sys

from absl import flags

from realm_jax.commands.command import (
  Command,
  config_flag,
  no_more,
  process_flags,
  workdir_flag,
)

FLAGS = flags.FLAGS


def _plan_flags() -> None:
  config_flag("The experiment's file.")
  flags.DEFINE_string(
    "devices",
    None,
    "<kind>:<count> to train on, such as h100:64, v5p:128 (chips) or cpu:8; "
    "realm_jax/plan/devices.toml has the kinds. Activations are as XLA for a "
    "CPU lays them out, which fuses less: for others an upper estimate.",
    required=True,
  )
  flags.DEFINE_string(
    "builder_devices", "", "<kind>:<count> that embed; by default as many more."
  )
  flags.DEFINE_integer(
    "passages",
    0,
    "Passages to plan the index for; 0 for the corpus' own, or Wikipedia's "
    "13,353,718 where there is no corpus yet.",
    lower_bound=0,
  )
  flags.DEFINE_float(
    "efficiency",
    0.4,
    "Share of the peak FLOP/s that matrix products reach; an assumption, to be "
    "replaced by your own measurement.",
    lower_bound=0.01,
    upper_bound=1.0,
  )


def _plan(args: list[str]) -> int:
  no_more(args)
  from realm_jax import config
  from realm_jax.plan import command

  fits = command.run_plan(
    config.parse(FLAGS.config),
    devices=FLAGS.devices,
    builder_devices=FLAGS.builder_devices,
    passages=FLAGS.passages,
    efficiency=FLAGS.efficiency,
  )
  return 0 if fits else 1


def trainer_flags(values: flags.FlagValues = FLAGS) -> None:
  """Defines the flags that are the same for each trainer of a run."""
  flags.DEFINE_list(
    "may_differ",
    [],
    "Config keys in which a resumed run may differ, beside those that any may: "
    "mesh, optimizer.accumulate_steps and remat.",
    flag_values=values,
  )
  flags.DEFINE_float(
    "peer_wait_seconds",
    600.0,
    "How long a process waits for the others, when it joins them and at each "
    "step, before it ends with an error that names those that are missing.",
    lower_bound=1.0,
    flag_values=values,
  )


def _train_flags() -> None:
  workdir_flag()
  config_flag("The experiment's file.")
  trainer_flags()
  flags.DEFINE_string(
    "coordinator",
    "",
    "host:port of process 0, where several processes train one run; by "
    "default SLURM, Cloud TPU or JAX_COORDINATOR_ADDRESS says so.",
  )
  process_flags("train the run; by default what those say", None, None)


def _train(args: list[str]) -> int:
  no_more(args)
  from realm_jax import cluster, config, hosts, sharding, workdir
  from realm_jax.train import loop, stop

  run = config.parse(FLAGS.config)
  group = cluster.find_group(
    FLAGS.coordinator,
    FLAGS.num_processes,
    FLAGS.process_id,
    wait_seconds=FLAGS.peer_wait_seconds,
  )
  with hosts.joined(group, FLAGS.peer_wait_seconds):
    # A run must not come to be of a shape that it cannot have.
    sharding.check_batch(run, sharding.make_mesh(run.mesh))
    if hosts.is_lead():
      workdir.claim(FLAGS.workdir, run, FLAGS.may_differ)
    hosts.check_same("config", config.dumps(run))
    if loop.train(run, FLAGS.workdir):
      return 0
    if hosts.is_lead():
      print(
        f"Stopped on request; {FLAGS.workdir} is saved. The same command "
        "goes on.",
        file=sys.stderr,
      )
    return stop.STOPPED_EXIT_CODE


def _build_index_flags() -> None:
  workdir_flag()
  flags.DEFINE_bool(
    "watch", False, "Go on with every new checkpoint until training is done."
  )
  flags.DEFINE_string("corpus", "", "Index this corpus instead of the run's.")


def _build_index(args: list[str]) -> int:
  no_more(args)
  from realm_jax.index import builder

  builder.build_index(FLAGS.workdir, watch=FLAGS.watch, corpus=FLAGS.corpus)
  return 0


def _index(args: list[str]) -> int:
  from realm_jax.index import listing

  actions = {
    "list": listing.list_index,
    "verify": listing.verify_index,
    "prune": listing.prune_index,
  }
  if len(args) != 1 or args[0] not in actions:
    raise ValueError(
      f"Say which of {', '.join(actions)}, got {args}: for example `realm "
      "index list --workdir=…`."
    )
  if deleted := actions[args[0]](FLAGS.workdir):
    print(f"Deleted {', '.join(deleted)}.")
  return 0


COMMANDS = {
  "plan": Command(
    "say what a run needs of memory, network and time, and whether it fits",
    _plan_flags,
    _plan,
  ),
  "train": Command(
    "train a stage (ict, dpr, mlm, realm, openqa), or go on with it",
    _train_flags,
    _train,
    computes=True,
  ),
  "build-index": Command(
    "embed the corpus from the newest checkpoint and publish an index",
    _build_index_flags,
    _build_index,
    computes=True,
  ),
  "index": Command(
    "list, verify or prune a run's index versions", workdir_flag, _index
  ),
}
