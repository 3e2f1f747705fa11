# SPDX-License-Identifier: Apache-2.0
import json
import pathlib

import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from realm_jax import checkpoints, config
from realm_jax import workdir as workdirs
from realm_jax.config import BertConfig, EmbedderConfig, RunConfig
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.exchange import hf_export
from realm_jax.exchange.export_run import export_run
from realm_jax.exchange.model_card import model_card
from realm_jax.models import import_bert
from realm_jax.models.tensor_files import open_tensors
from tests.exchange import sample_export
from tests.exchange.lookalike import OPEN_QA


@pytest.fixture(scope="module")
def exported(imported, tmp_path_factory):
  output = tmp_path_factory.mktemp("exported") / "models"
  export_run(str(imported), str(output))
  return output


def names(folder: pathlib.Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir())


def same_tree(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    if isinstance(value, dict):
      same_tree(found[name], value)
    else:
      np.testing.assert_array_equal(found[name], value)


def test_a_run_s_parts_are_written(exported):
  assert names(exported) == [
    "embeddings.npy",
    "params",
    "reader",
    "retriever-document",
    "retriever-query",
    "run.json",
    "uids.jsonl",
  ]
  assert names(exported / "retriever-query") == [
    "README.md",
    "config.json",
    "model.safetensors",
    "projection.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]


def test_a_tower_that_is_read_again_is_the_same(exported, imported):
  tower = checkpoints.restore_params(imported, 1, "retriever")["query"]
  folder = exported / "retriever-query"

  again = import_bert.load_bert(str(folder), workdirs.load(imported).encoder)

  same_tree(again["bert"], tower["bert"])
  same_tree(again["pooler"], tower["head"]["pooler"])
  projection = load_file(folder / hf_export.PROJECTION)
  original = open_tensors(OPEN_QA)
  for name, value in projection.items():
    np.testing.assert_array_equal(value, original[f"embedder.{name}"])


def test_an_encoder_that_is_read_again_is_the_same(tmp_path):
  sample_export.write(tmp_path)

  tensors = load_file(tmp_path / "encoder" / "model.safetensors")

  original = open_tensors(OPEN_QA)
  for name, value in tensors.items():
    theirs = "reader." + name.replace("bert.", "realm.")
    np.testing.assert_array_equal(value, original[theirs])


def test_vectors_are_the_index_s_in_either_format(exported, imported, tmp_path):
  export_run(
    str(imported),
    str(tmp_path / "again"),
    parts=("embeddings",),
    vector_format="safetensors",
  )

  expected = np.asarray(open_tensors(OPEN_QA)["block_emb"])
  np.testing.assert_array_equal(np.load(exported / "embeddings.npy"), expected)
  np.testing.assert_array_equal(
    load_file(tmp_path / "again" / "embeddings.safetensors")["block_emb"],
    expected,
  )
  assert names(tmp_path / "again") == [
    "embeddings.safetensors",
    "run.json",
    "uids.jsonl",
  ]
  uids = (exported / "uids.jsonl").read_text().splitlines()
  assert [json.loads(uid) for uid in uids] == [str(i) for i in range(24)]


def test_orbax_restores_all_parameters(exported, imported):
  with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.restore(exported / "params")

  for part in ("retriever", "reader"):
    same_tree(found[part], checkpoints.restore_params(imported, 1, part))
  assert found.keys() == {"retriever", "reader"}
  assert config.loads((exported / "run.json").read_text()) == workdirs.load(
    imported
  )


def test_transformers_loads_the_tokenizer(exported):
  text = "What is the capital of Bakodia?"

  theirs = AutoTokenizer.from_pretrained(exported / "retriever-query")

  ours = load_tokenizer(exported / "retriever-query")
  ids = ours.encode(text).ids.tolist()
  assert theirs(text)["input_ids"] == [ours.cls_id, *ids, ours.sep_id]
  assert theirs.pad_token_id == ours.pad_id == 0


def test_the_card_says_how_to_use_it_and_with_what_config(exported, imported):
  card = (exported / "retriever-query" / "README.md").read_text()

  assert "checkpoint 1;" in card
  assert "an epsilon of 1e-12" in card
  assert "Not evaluated." in card
  text = card.split("```json\n")[1].split("```")[0]
  assert config.loads(text) == workdirs.load(imported)


def test_the_card_has_the_scores_of_its_checkpoint():
  figures = {
    "step": 500,
    "data": "dev.jsonl",
    "num_examples": 8757,
    "exact_match": 0.404,
    "intervals": {"exact_match": [0.39, 0.418]},
  }

  card = model_card(RunConfig(), 500, "encoder", figures)

  assert '8,757 examples of "dev.jsonl", checkpoint 500.' in card
  assert "| exact_match | 0.404 | 0.390-0.418 |" in card


def test_what_is_no_bert_of_theirs_is_refused(tiny_tokenizer, tmp_path):
  bert = BertConfig(norm="pre", positions="relative")

  with pytest.raises(ValueError, match="norm='pre' and positions='relative'"):
    hf_export.export_tower(
      tmp_path / "tower",
      {"bert": {}},
      EmbedderConfig(bert=bert),
      tiny_tokenizer,
    )
  assert not (tmp_path / "tower").exists()


def test_a_part_that_the_stage_has_not_is_refused(imported, tmp_path):
  with pytest.raises(ValueError, match=r"stage 'openqa', has no \['encoder'\]"):
    export_run(str(imported), str(tmp_path / "out"), parts=("encoder",))
  assert names(tmp_path) == []


def test_an_output_that_is_there_is_refused(imported, tmp_path):
  with pytest.raises(FileExistsError, match="exists: choose another"):
    export_run(str(imported), str(tmp_path))
