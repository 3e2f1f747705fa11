# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from launch import table as tables
from launch.table import Row, Table
from realm_jax.config import InitConfig, RunConfig


def started(retriever="", encoder=""):
  return RunConfig(init=InitConfig(retriever=retriever, encoder=encoder))


STAGES = {
  "ict": started("some/bert"),
  "realm": started("stage:ict", "some/bert"),
  "from-ict": started("stage:ict", "some/bert"),
  "from-realm": started("stage:realm@40", "stage:realm"),
}
ROWS = (
  Row(name="realm", label="REALM", stage="from-realm", flags=("--limit=3",)),
  Row(name="orqa", label="ICT only", stage="from-ict", seeds=(7,)),
)
TABLE = Table(
  questions="q.jsonl", stages=STAGES, rows=ROWS, seeds=(0, 7), once=("ict",)
)


def compared(**against):
  """Two rows, the first of seed 7 alone."""
  return (
    Row(name="ict", label="", stage="ict", seeds=(7,)),
    Row(name="realm", label="", stage="realm", **against),
  )


def test_a_table_survives_the_form_in_which_flags_change_it():
  raw = TABLE.to_config_dict()
  assert tables.parse(raw) == TABLE
  raw.stages.ict.num_steps = 12
  raw.seeds = (3, 7)
  changed = tables.parse(raw)
  assert changed.stages["ict"].num_steps == 12
  assert changed.seeds == (3, 7)


def test_a_chain_has_each_stage_once_after_those_it_starts_from():
  assert TABLE.chain("ict") == ("ict",)
  assert TABLE.chain("from-realm") == ("ict", "realm", "from-realm")


def test_readers_are_scored_on_questions_and_the_rest_on_texts_if_there_are():
  def data_of(**data):
    rows = (
      Row(name="pretrained", label="", stage="realm"),
      Row(name="reader", label="", stage="qa"),
    )
    stages = {"realm": RunConfig(), "qa": RunConfig(stage="openqa")}
    table = Table(stages=stages, rows=rows, **data)
    return [table.data_of(row) for row in rows]

  questions, texts = {"questions": "q.jsonl"}, {"texts": "t.jsonl"}
  assert data_of(**questions) == [questions, questions]
  assert data_of(**questions, **texts) == [texts, questions]
  with pytest.raises(ValueError, match="Row 'reader' is scored on nothing"):
    data_of(**texts)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"questions": ""}, "Row 'realm' is scored on nothing: questions or texts"),
    ({"seeds": ()}, "at least one row and one seed"),
    ({"seeds": (3,)}, r"Row 'orqa' has the seeds \(7,\), and the table \(3,\)"),
    ({"rows": ()}, "at least one row"),
    ({"rows": ROWS[:1] * 2}, r"Two rows have one name: \['realm', 'realm'\]"),
    (
      {"rows": (Row(name="x", label="", stage="none"),)},
      r"Row 'x' names the stage 'none', and there are \['from-ict', .*'realm'",
    ),
    ({"once": ("nowhere",)}, "once names the stage 'nowhere'"),
    (
      {"once": ("realm",)},
      r"once names 'realm', which starts from \['ict'\]: name those",
    ),
    (
      {"rows": compared(against="orqa")},
      r"'realm' is compared with 'orqa', and the rows before it are \['ict'\]",
    ),
    (
      {"rows": compared(against="realm")},
      "compared with 'realm', and the rows",
    ),
    (
      {"rows": compared(against="ict")},
      r"'realm' has the seeds \(0, 7\), and 'ict', which .* with, \(7,\)",
    ),
    (
      {"rows": compared(against="ict", seeds=(7,)), "texts": "t.jsonl"},
      "Row 'realm' is scored on texts, and rows are compared by their quest",
    ),
    (
      {"rows": (Row(name="../x", label="", stage="ict"),)},
      r"'\.\./x' names a stage",
    ),
    (
      {"stages": STAGES | {"ict": started("stage:nowhere")}},
      "Stage 'ict' names the stage 'nowhere'",
    ),
    (
      {"stages": STAGES | {"ict": started("stage:realm")}},
      "realm <- ict <- realm",
    ),
  ],
)
def test_what_cannot_be_run_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(TABLE, **changes)


def set_stage(raw):
  raw.stages.ict.stage = "icy"


def set_row(raw):
  raw.rows[1]["colour"] = "red"


def set_table(raw):
  with raw.unlocked():
    raw.colour = "red"


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (set_stage, r"ict: config\.stage='icy' is not one of"),
    (set_row, "orqa: .*'colour'"),
    (set_table, r"has the keys .*'colour'"),
  ],
)
def test_a_malformed_config_is_refused(edit, message):
  raw = TABLE.to_config_dict()
  edit(raw)
  with pytest.raises(ValueError, match=message):
    tables.parse(raw)
