# SPDX-License-Identifier: Apache-2.0
r"""What retrieval, pre-training and supervision each contribute, as a table.

    make squad-open-table DATA=<folder>

prepares the corpus of <folder>/corpus.jsonl.gz and runs

    realm table --workdir=squad_open \
      --config=experiments/squad_open/table.py:cpu,squad_open,<folder>

whose rows are scored on <folder>/validation.jsonl.gz. The same command goes on
after a stop. `SIZE=gpu` takes the larger sizes of `stages.py`.

On two cores a stage takes from 8 minutes (ICT) to 2 hours (REALM, both seeds
at once, a core each). Seen there: ICT + REALM, supervised, exact match 56.2,
recall@5 89.1 and @20 95.4; with BM25 58.3, 94.4 and 98.0; with the gold
passage, exact match 64.2. The README has the table. "gpu", for one accelerator
of 80 GB or more, has not been run.
"""

import os

import ml_collections

from experiments.squad_open.stages import stages
from launch.table import Row, Table

_FIRST = (0,)

# Those first that make the indexes which others read.
ROWS = (
  Row(name="closed", label="Closed book", stage="qa_closed", seeds=_FIRST),
  Row(name="bm25", label="BM25 + reader", stage="qa_bm25", seeds=_FIRST),
  Row(
    name="ict_asked_nothing", label="ICT only, no question seen", stage="ict"
  ),
  Row(
    name="realm_asked_nothing",
    label="ICT + REALM, no question seen",
    stage="realm",
    against="ict_asked_nothing",
  ),
  Row(name="ict", label="ICT only (ORQA)", stage="qa_ict"),
  Row(name="realm", label="ICT + REALM", stage="qa_realm", against="ict"),
  Row(
    name="dpr_ict",
    label="ICT, supervised",
    stage="qa_dpr_ict",
    seeds=_FIRST,
  ),
  Row(
    name="dpr_realm",
    label="ICT + REALM, supervised",
    stage="qa_dpr_realm",
    seeds=_FIRST,
    against="dpr_ict",
  ),
  Row(
    name="dpr_realm_hybrid",
    label="ICT + REALM, supervised, with BM25",
    stage="qa_dpr_realm",
    flags=("--retriever=hybrid",),
    seeds=_FIRST,
    against="dpr_realm",
  ),
  Row(
    name="dpr_realm_gold",
    label="ICT + REALM, supervised, reader given the gold passage",
    stage="qa_dpr_realm",
    flags=("--retriever=gold",),
    seeds=_FIRST,
  ),
)


def get_config(argument: str) -> ml_collections.ConfigDict:
  """Returns the table of "<size>,<directory>,<folder of the questions>".

  Raises:
    ValueError: the argument is not of this form.
  """
  return table(*_parts(argument)).to_config_dict()


def table(size: str, directory: str, data: str) -> Table:
  """Returns the table; the arguments are those of `stages`.

  Paths are kept absolute: a workdir is evaluated from anywhere.
  """
  directory, data = os.path.abspath(directory), os.path.abspath(data)
  return Table(
    questions=f"{data}/validation.jsonl.gz",
    stages=stages(size, directory, data),
    rows=ROWS,
    seeds=(0, 1),
    # What both seeds' rows read with, so that they differ in retrieval.
    once=("reading", "reader"),
  )


def _parts(argument: str) -> tuple[str, str, str]:
  parts = argument.split(",")
  if len(parts) != 3:
    raise ValueError(
      "The config's argument is <size>,<directory>,<folder of the questions>, "
      f"got {argument!r}."
    )
  return parts[0], parts[1], parts[2]
