# SPDX-License-Identifier: Apache-2.0
"""A small released model, as transformers wrote it, becomes a workdir."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tensorboardX.record_writer import RecordWriter

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.data.block_records import read_block_records
from realm_jax.data.blocks import build_block_corpus
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.sources import read_documents
from realm_jax.data.tokenize import load_tokenizer
from realm_jax.eval.evaluate import evaluate
from realm_jax.eval.open_qa import QuestionAnswerer
from realm_jax.exchange import import_run
from realm_jax.exchange.sources import read_source
from realm_jax.index import store
from realm_jax.index.builder import build_index
from realm_jax.index.manifest import Manifest
from realm_jax.index.verify import VersionRefused
from realm_jax.models.import_realm import part
from realm_jax.models.tensor_files import open_tensors
from tests.exchange.lookalike import OPEN_QA, do_import
from tests.models.parity import ROOT

BLOCKS = OPEN_QA / "block_records.npy"


@pytest.fixture(scope="module")
def answerer(imported):
  return QuestionAnswerer.open(imported)


@pytest.fixture(scope="module")
def recorded():
  """Questions, and what transformers answered to them."""
  found = load_file(OPEN_QA / "golden.safetensors")
  count = 1 + max(int(name.split(".")[0]) for name in found)
  return [{name: found[f"{i}.{name}"] for name in KINDS} for i in range(count)]


KINDS = ("question", "blocks", "scores", "block", "answer")


def test_what_is_found_and_how_it_scores_equals_hugging_face(
  answerer, recorded
):
  found = answerer.find([bytes(r["question"]).decode() for r in recorded])

  for i, expected in enumerate(recorded):
    np.testing.assert_array_equal(found.ids[i, :3], expected["blocks"])
    np.testing.assert_allclose(
      found.scores[i, :3], expected["scores"], atol=1e-5
    )


def test_answers_equal_hugging_face(answerer, recorded):
  tokenizer = load_tokenizer(OPEN_QA)
  answered = answerer.answer([bytes(r["question"]).decode() for r in recorded])

  for found, expected in zip(answered, recorded, strict=True):
    # Theirs is the best mention; ours adds up the mentions of an answer.
    mentions = [e for answer in found.answers for e in answer.evidence]
    evidence = max(mentions, key=lambda e: e.span_score)
    assert evidence.uid == str(expected["block"])
    pieces = tokenizer.encode(evidence.text)
    inside = (pieces.starts >= evidence.start) & (pieces.ends <= evidence.end)
    np.testing.assert_array_equal(pieces.ids[inside], expected["answer"])


def test_passage_i_is_block_i_word_for_word(imported):
  corpus = PassageCorpus.open(workdirs.load(imported).data.corpus)

  passages = corpus.passages(range(len(corpus)))

  blocks = list(read_block_records(BLOCKS))
  assert [p.text for p in passages] == [b.text for b in blocks]
  assert [p.uid for p in passages] == [str(i) for i in range(len(blocks))]


def test_the_index_has_the_vectors_that_were_published(imported):
  run = workdirs.load(imported)
  corpus = PassageCorpus.open(run.data.corpus)
  (name,) = store.list_versions(imported)

  opened = store.open_version(imported, name, run, corpus)

  np.testing.assert_array_equal(
    np.asarray(opened.embeddings),
    np.asarray(open_tensors(OPEN_QA)["block_emb"]),
  )
  assert opened.manifest.checks["recall_at_10"] == 1.0
  assert "reembed_error" not in opened.manifest.checks


def test_a_workdir_is_evaluated(imported, recorded, tmp_path):
  tokenizer = load_tokenizer(workdirs.load(imported).data.tokenizer)
  lines = [
    {
      "question": bytes(r["question"]).decode(),
      "answers": [tokenizer.decode(r["answer"])],
    }
    for r in recorded
  ]
  questions = tmp_path / "questions.jsonl"
  questions.write_text("".join(json.dumps(line) + "\n" for line in lines))

  figures = evaluate(
    str(imported),
    questions=str(questions),
    predictions=str(tmp_path / "predictions.jsonl"),
  )

  assert figures["num_examples"] == len(recorded)
  assert figures["oracle_exact_match"] == 1.0


def test_towers_and_reader_are_the_checkpoint_s(imported):
  towers = checkpoints.restore_params(imported, 1, "retriever")
  reader = checkpoints.restore_params(imported, 1, "reader")

  tensors = open_tensors(OPEN_QA)
  np.testing.assert_array_equal(
    towers["query"]["head"]["projection"]["kernel"].T,
    tensors["embedder.cls.dense.weight"],
  )
  np.testing.assert_array_equal(
    reader["span_head"]["score"]["kernel"].T,
    tensors["reader.qa_outputs.dense_output.weight"],
  )
  assert workdirs.is_done(imported)


@pytest.fixture
def written(tmp_path):
  """Writes some of the look-alike's tensors as a folder of another kind."""

  def write(name, tensors, *files):
    folder = tmp_path / name
    folder.mkdir()
    arrays = {
      name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()
    }
    save_file(arrays, folder / "model.safetensors")
    for file in ("config.json", *files):
      shutil.copy(OPEN_QA / file, folder)
    return folder

  return write


def open_qa(prefix=""):
  return part(open_tensors(OPEN_QA), prefix)


def tfr(path, texts):
  with contextlib.closing(RecordWriter(str(path))) as writer:
    for text in texts:
      writer.write(text)


def test_a_pretrained_model_is_imported_with_an_index_that_can_be_made_again(
  written, tmp_path
):
  """Encoder, tower, and blocks with titles: REALM before fine-tuning."""
  tower = written("embedder", open_qa("embedder."), "tokenizer.json")
  encoder = written(
    "encoder",
    {
      name: tensor
      for name, tensor in open_qa("reader.").items()
      if "qa_outputs" not in name and "decoder" not in name
    },
  )
  blocks = [block.text.encode() for block in read_block_records(BLOCKS)]
  tfr(tmp_path / "blocks.tfr", blocks)
  tfr(tmp_path / "titles.tfr", [b"Rivers"] * len(blocks))
  corpus = build_block_corpus(
    read_documents(str(tmp_path / "blocks.tfr")),
    load_tokenizer(tower),
    tmp_path / "corpus",
    40,
  )

  run = do_import(
    tower, encoder, workdir=tmp_path / "one", corpus=str(corpus.directory)
  )

  assert run.stage == "realm"
  assert store.list_versions(tmp_path / "one") == []
  (name,) = build_index(tmp_path / "one")
  opened = store.open_version(tmp_path / "one", name, run, corpus)
  vectors = np.array(opened.embeddings)
  given = {k: v for k, v in open_qa().items() if k.startswith("reader.")}
  given["block_emb"] = vectors

  published = written("published", given, "tokenizer.json")
  options = {"blocks": str(tmp_path / "blocks.tfr")}
  do_import(published, tower, workdir=tmp_path / "two", **options)

  (name,) = store.list_versions(tmp_path / "two")
  manifest = Manifest.read(store.index_folder(tmp_path / "two") / name)
  assert manifest.checks["reembed_error"] < 1e-4
  assert manifest.embedder_hash == opened.manifest.embedder_hash

  given["block_emb"] = np.roll(vectors, 1, axis=0)
  shifted = written("shifted", given, "tokenizer.json")
  with pytest.raises(VersionRefused, match="rows and passages do not match"):
    do_import(shifted, tower, workdir=tmp_path / "three", **options)


def test_a_scorer_s_towers_are_one_only_if_they_are_equal():
  one = import_run.merge([read_source(str(ROOT / "realm_scorer"))])
  two = import_run.merge([read_source(str(ROOT / "realm_scorer_untied"))])

  assert set(one.params["retriever"]) == {"shared"}
  assert set(two.params["retriever"]) == {"query", "document"}
  assert one.stage == "ict"


def test_before_fine_tuning_there_is_one_tower(written):
  """`google/realm-cc-news-pretrained-openqa`: no span head yet."""
  tensors = {k: v for k, v in open_qa().items() if "qa_outputs" not in k}

  found = import_run.merge([read_source(str(written("openqa", tensors)))])

  assert found.stage == "realm"
  assert found.params.keys() == {"retriever", "encoder"}
  assert found.params["retriever"].keys() == {"shared"}
  assert found.has_document_tower


def test_a_reader_needs_an_embedder():
  with pytest.raises(ValueError, match="without a RealmEmbedder"):
    import_run.merge([read_source(str(ROOT / "realm_reader"))])


def test_a_part_that_comes_twice_is_refused():
  embedder = read_source(str(ROOT / "realm_embedder"))

  with pytest.raises(ValueError, match=r"has \['tower'\], as a source before"):
    import_run.merge([embedder, embedder])


def test_a_run_has_an_encoder_or_a_reader():
  names = ("realm_embedder", "realm_encoder", "realm_reader")

  with pytest.raises(ValueError, match="make two workdirs"):
    import_run.merge([read_source(str(ROOT / name)) for name in names])


def test_sources_of_two_architectures_are_refused():
  sources = [read_source(str(p)) for p in (OPEN_QA, ROOT / "realm_embedder")]

  with pytest.raises(ValueError, match=r"dim: 5 there|bert: .* here"):
    import_run.merge(sources)


def test_a_model_that_is_not_realm_s_is_refused():
  with pytest.raises(
    ValueError, match="model_type must be 'realm', got 'bert'"
  ):
    read_source(str(ROOT / "bert_model"))


def test_other_numbers_of_blocks_and_vectors_are_refused(tmp_path):
  np.save(tmp_path / "b.npy", np.array([b"one", b"two"], object))

  with pytest.raises(
    ValueError, match="has 2 blocks, and there are 24 vectors"
  ):
    do_import(OPEN_QA, workdir=tmp_path / "run", blocks=str(tmp_path / "b.npy"))
  assert not (tmp_path / "run").exists()


def test_vectors_without_texts_are_refused(written, tmp_path):
  folder = written("no-texts", open_qa(), "tokenizer.json")

  with pytest.raises(ValueError, match="no texts of theirs: give --blocks"):
    do_import(folder, workdir=tmp_path / "run")


def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_tokenizer, tmp_path):
  tiny_tokenizer.save(tmp_path / "tokenizer")

  with pytest.raises(ValueError, match=r"tokenizer has \d+ pieces, .* 119"):
    do_import(
      OPEN_QA,
      workdir=tmp_path / "run",
      tokenizer=str(tmp_path / "tokenizer"),
    )


def test_a_workdir_that_has_a_run_is_refused(imported):
  with pytest.raises(FileExistsError, match="has a run already"):
    do_import(OPEN_QA, workdir=imported)
