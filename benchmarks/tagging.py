# SPDX-License-Identifier: Apache-2.0
"""Finding salient spans: sentences a second, and where the time goes.

  python -m benchmarks.tagging
  python -m benchmarks.tagging --dtype=bfloat16 --sentences=200000

A BERT-base for token classification (or --layers and --hidden) of random
weights, on made-up sentences with names and dates. Its labels mean nothing,
and cost what real ones cost. "cpu" figures are by CPU time of this process,
which on a busy machine changes less than the clock's; on an accelerator look
at the clock's.
"""

import json
import pathlib
import tempfile
import time
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from benchmarks.corpus import make_words
from realm_jax.config import BertConfig
from realm_jax.data.dates import find_dates
from realm_jax.data.tokenize import load_tokenizer, train_tokenizer
from realm_jax.models import import_bert
from realm_jax.models.token_classifier import TokenClassifier
from realm_jax.tagging.bert_tagger import BertTagger

_SENTENCES = flags.DEFINE_integer("sentences", 1000, "To be tagged.")
_LAYERS = flags.DEFINE_integer("layers", 12, "Of the BERT.")
_HIDDEN = flags.DEFINE_integer("hidden", 768, "Its width.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "")

_LABELS = (
  "O",
  *(f"{b}-{k}" for k in ("PER", "ORG", "LOC", "MISC") for b in "BI"),
)


def make_sentences(count: int) -> list[str]:
  """Returns sentences of 8 to 40 words, each with a name and a date."""
  rng, words = np.random.default_rng(0), np.array(make_words())
  made = []
  for number in range(count):
    drawn = words[rng.integers(len(words), size=rng.integers(4, 36))].tolist()
    year = 1500 + number % 500
    made.append(f"{drawn[0].title()} {' '.join(drawn[1:])} on 4 May {year}.")
  return made


def write_classifier(folder: pathlib.Path, sentences: list[str]) -> int:
  """Writes a random checkpoint; returns its parameters' number."""
  train_tokenizer(sentences[:2000], 4000, folder)
  config = BertConfig(
    vocab_size=load_tokenizer(folder).vocab_size,
    hidden_size=_HIDDEN.value,
    num_layers=_LAYERS.value,
    num_heads=max(1, _HIDDEN.value // 64),
    mlp_size=4 * _HIDDEN.value,
  )
  module, rows = TokenClassifier(config, len(_LABELS)), jnp.zeros((1, 2), int)
  params = jax.device_get(
    module.init(jax.random.key(0), rows, rows, rows == 0, deterministic=True)
  )["params"]
  tensors = import_bert.to_tensors({"bert": params["bert"]}, config.num_layers)
  head = params["classifier"]
  tensors["classifier.weight"] = np.ascontiguousarray(head["kernel"].T)
  tensors["classifier.bias"] = np.asarray(head["bias"])
  save_file(tensors, folder / "model.safetensors")
  settings = {
    "model_type": "bert",
    "vocab_size": config.vocab_size,
    "hidden_size": config.hidden_size,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "intermediate_size": config.mlp_size,
    "max_position_embeddings": config.max_positions,
    "type_vocab_size": config.num_segments,
    "layer_norm_eps": config.norm_eps,
    "hidden_act": config.activation,
    "id2label": dict(enumerate(_LABELS)),
  }
  (folder / "config.json").write_text(json.dumps(settings))
  return sum(
    leaf.size for leaf in jax.tree.leaves(params["bert"]["layers_0"])
  ) * (config.num_layers)


def main(_: list[str]) -> None:
  """Prints a line of JSON."""
  sentences = make_sentences(_SENTENCES.value)
  with tempfile.TemporaryDirectory() as name:
    num_weights = write_classifier(pathlib.Path(name), sentences)
    tagger = BertTagger(name, dtype=_DTYPE.value)  # type: ignore[arg-type]
    num_pieces = sum(map(len, load_tokenizer(name).encode_batch(sentences)))
  tagger.tag(sentences)  # Compiles every shape.
  found = _timed("tag", lambda: tagger.tag(sentences), len(sentences))
  found |= _timed(
    "dates", lambda: [find_dates(text) for text in sentences], len(sentences)
  )
  flops = 2 * num_weights * num_pieces  # Of the layers' matrices.
  print(
    json.dumps(
      {
        "device": jax.devices()[0].device_kind,
        "layers": _LAYERS.value,
        "hidden": _HIDDEN.value,
        "dtype": _DTYPE.value,
        "sentences": len(sentences),
        "pieces_a_sentence": round(num_pieces / len(sentences), 1),
        **found,
        "useful_gflops": round(flops / found["tag_seconds"] / 1e9, 1),
      }
    )
  )


def _timed(name: str, work: Any, count: int) -> dict[str, float]:
  started, cpu_started = time.perf_counter(), time.process_time()
  work()
  seconds = time.perf_counter() - started
  cpu_seconds = time.process_time() - cpu_started
  return {
    f"{name}_seconds": round(seconds, 3),
    f"{name}_sentences_a_second": round(count / seconds, 1),
    f"{name}_sentences_a_cpu_second": round(count / cpu_seconds, 1),
  }


if __name__ == "__main__":
  app.run(main)
