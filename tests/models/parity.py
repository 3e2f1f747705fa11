# SPDX-License-Identifier: Apache-2.0
"""Our models beside Hugging Face's: `python -m tests.models.parity`.

Prints a table: for each model whose weights, inputs, outputs and gradients
tools/golden/make_golden.py recorded, how far ours are from them.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.models import import_bert, import_realm
from realm_jax.models.bert import BertEncoder
from realm_jax.models.embedder import Embedder, tower
from realm_jax.models.reader import KnowledgeAugmentedEncoder, SpanReader
from realm_jax.models.tensor_files import open_tensors
from realm_jax.models.token_classifier import TokenClassifier
from realm_jax.objectives import mlm, open_qa, retrieval

ROOT = pathlib.Path(__file__).parent / "golden"
SCALED = "scaled."  # Before the names of outputs when dropout scales.
INPUT = "input."  # Before the names of gradients that are an input's.
TOKEN_TABLE = "token_embed/embedding"


@dataclasses.dataclass(frozen=True)
class Golden:
  """A recorded case."""

  folder: pathlib.Path
  weights: dict[str, np.ndarray]
  recorded: dict[str, np.ndarray]
  gradients: dict[str, np.ndarray]

  @classmethod
  def load(cls, name: str) -> "Golden":
    folder = ROOT / name
    tensors = open_tensors(folder)
    return cls(
      folder,
      {name: np.asarray(tensor) for name, tensor in tensors.items()},
      load_file(folder / "golden.safetensors"),
      load_file(folder / "gradients.safetensors"),
    )

  def rows(self, prefix: str = "") -> dict[str, jax.Array]:
    """The texts, as our models take them."""

    def flat(name: str) -> np.ndarray:
      return self.recorded[prefix + name].reshape(
        -1, self.recorded[prefix + name].shape[-1]
      )

    return {
      "ids": jnp.asarray(flat("input_ids"), jnp.int32),
      "segments": jnp.asarray(flat("token_type_ids"), jnp.int32),
      "mask": jnp.asarray(flat("attention_mask") == 1),
    }

  @property
  def real(self) -> np.ndarray:
    return self.recorded["attention_mask"] == 1

  @property
  def inputs(self) -> dict[str, jax.Array]:
    """What has a gradient and is no parameter: scores of a retriever."""
    names = [
      name.removeprefix(INPUT)
      for name in self.gradients
      if name.startswith(INPUT)
    ]
    return {name: jnp.asarray(self.recorded[name]) for name in names}

  def bert(self, **fields: Any) -> BertConfig:
    """The architecture that the case's config.json describes."""
    raw = json.loads((self.folder / "config.json").read_text())
    exact = raw["hidden_act"] == "gelu"
    return BertConfig(
      **{
        "vocab_size": 40,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_size": 24,
        "max_positions": 14,
        "activation": "gelu" if exact else "gelu_tanh",
        "attention_dropout": 0.2,
        **fields,
      }
    )


Params = Any
Tensors = Mapping[str, np.ndarray]
Inputs = Mapping[str, jax.Array]  # Those that have a gradient, too.


class Model(NamedTuple):
  """How one of our models takes a case."""

  params: Callable[[Tensors], Params]  # Of weights or of gradients.
  run: Callable[[Params, Inputs, bool], dict[str, jax.Array]]


def _real(values: jax.Array, rows: dict[str, jax.Array]) -> jax.Array:
  return values * rows["mask"][..., None]


def _with_loss(outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
  terms = [
    (value.reshape(-1) * jnp.cos(jnp.arange(value.size))).sum()
    for value in outputs.values()
  ]
  return outputs | {"loss": sum(terms, jnp.zeros(())) / 3}


def _cross_entropy(logits: jax.Array, labels: np.ndarray) -> jax.Array:
  keep = jnp.asarray(labels >= 0)
  targets = jnp.maximum(labels, 0).astype(jnp.int32)
  log_probs = mlm.token_log_probs(logits, targets)
  return -mlm.span_log_likelihood(log_probs, keep).sum() / keep.sum()


def _apply(
  module: nn.Module, params: Params, rows: Any, exact: bool, **inputs: Any
) -> Any:
  return module.apply(
    {"params": params},
    **rows,
    **inputs,
    deterministic=exact,
    rngs={"dropout": jax.random.key(0)},
  )


def _bert_model(case: Golden, config: BertConfig) -> Model:
  rows = case.rows()

  def run(params: Params, _: Inputs, exact: bool) -> dict[str, jax.Array]:
    states = _apply(BertEncoder(config), params["bert"], rows, exact)
    dense = params["pooler"]
    first = states[:, 0] @ dense["kernel"] + dense["bias"][None]
    return _with_loss(
      {"states": _real(states, rows), "pooled": jnp.tanh(first)}
    )

  def params(tensors: Tensors) -> Params:
    return import_bert.from_tensors(tensors, config, "golden")

  return Model(params, run)


def _masked_lm(case: Golden, config: BertConfig) -> Model:
  rows, labels = case.rows(), case.recorded["labels"]
  positions = jnp.broadcast_to(jnp.arange(labels.shape[1])[None], labels.shape)
  encoder = KnowledgeAugmentedEncoder(config)

  def run(params: Params, _: Inputs, exact: bool) -> dict[str, jax.Array]:
    states = _apply(BertEncoder(config), params["bert"], rows, exact)
    logits = _apply(encoder, params, rows, exact, positions=positions)
    return {
      "states": _real(states, rows),
      "logits": _real(logits, rows),
      "loss": _cross_entropy(logits, labels),
    }

  def params(tensors: Tensors) -> Params:
    found = import_bert.from_tensors(tensors, config, "golden")
    return {name: found[name] for name in ("bert", "mlm_head")}

  return Model(params, run)


def _token_classification(case: Golden, config: BertConfig) -> Model:
  rows, labels = case.rows(), case.recorded["labels"]

  classifier = TokenClassifier(config, len(case.weights["classifier.bias"]))

  def run(params: Params, _: Inputs, exact: bool) -> dict[str, jax.Array]:
    logits = _apply(classifier, params, rows, exact)
    return {
      "logits": _real(logits, rows),
      "loss": _cross_entropy(logits, labels),
    }

  def params(tensors: Tensors) -> Params:
    return import_bert.from_tensors(tensors, config, "golden")

  return Model(params, run)


def _embedder(config: BertConfig, **fields: Any) -> Embedder:
  return Embedder(EmbedderConfig(bert=config, dim=5, **fields))


def realm_embedder(case: Golden, config: BertConfig, **fields: Any) -> Model:
  rows, embedder = case.rows(), _embedder(config, **fields)

  def run(params: Params, _: Inputs, exact: bool) -> dict[str, jax.Array]:
    return _with_loss({"vectors": _apply(embedder, params, rows, exact)})

  def params(tensors: Tensors) -> Params:
    return import_realm.embedder_params(tensors, embedder.config, "golden")

  return Model(params, run)


def _realm_scorer(case: Golden, config: BertConfig) -> Model:
  query, candidates = case.rows(), case.rows("candidate_")
  embedder = _embedder(config)

  def run(params: Params, _: Inputs, exact: bool) -> dict[str, jax.Array]:
    asked = _apply(embedder, tower(params, "query"), query, exact)
    found = _apply(embedder, tower(params, "document"), candidates, exact)
    scores = retrieval.candidate_scores(asked, found[None], 1.0)
    return _with_loss({"relevance_score": scores})

  def params(tensors: Tensors) -> Params:
    return import_realm.scorer_params(tensors, embedder.config, "golden")

  return Model(params, run)


def _realm_encoder(case: Golden, config: BertConfig) -> Model:
  rows, recorded = case.rows(), case.recorded
  keep = jnp.asarray(recorded["mlm_mask"] == 1)  # [B=1, T]
  labels = jnp.broadcast_to(recorded["labels"], rows["ids"].shape)
  positions = jnp.broadcast_to(jnp.arange(labels.shape[1])[None], labels.shape)

  def run(params: Params, inputs: Inputs, exact: bool) -> dict[str, jax.Array]:
    encoder = KnowledgeAugmentedEncoder(config)
    logits = _apply(encoder, params, rows, exact, positions=positions)
    scores = inputs["relevance_score"]
    log_likelihood = mlm.marginal_log_likelihood(
      retrieval.candidate_log_probs(scores, jnp.ones(scores.shape, bool)),
      mlm.token_log_probs(logits, labels)[None],
      keep,
      "per_mask",
    )
    return {
      "logits": _real(logits, rows),
      "loss": -log_likelihood[0] / keep.sum(),
    }

  def params(tensors: Tensors) -> Params:
    return import_realm.encoder_params(tensors, config, "golden")

  return Model(params, run)


def _realm_reader(case: Golden, config: BertConfig) -> Model:
  rows, recorded = case.rows(), case.recorded
  reader = SpanReader(config, max_span=3, span_width=6)
  block = jnp.asarray(recorded["block_mask"])
  starts, ends = recorded["starts"], recorded["ends"]
  has_answer = jnp.asarray(recorded["has_answers"])[None]
  gold = np.zeros((*block.shape, 3), bool)
  first, last = recorded["start_positions"], recorded["end_positions"]
  for passage, answer in np.argwhere(first >= 0):
    start = first[passage, answer]
    gold[passage, start, last[passage, answer] - start] = True

  def run(params: Params, inputs: Inputs, exact: bool) -> dict[str, jax.Array]:
    spans = _apply(reader, params, rows, exact, block_mask=block)
    found = inputs["relevance_score"][None]  # [B=1, C]
    retriever, _ = open_qa.retriever_log_likelihood(
      found, jnp.ones(found.shape, bool), has_answer
    )
    read, _ = open_qa.reader_log_likelihood(
      spans[None], found[:, : len(block)], jnp.asarray(gold)[None]
    )
    inside = block[:, starts] & block[:, ends]
    return {
      "scores": jnp.where(inside, spans[:, starts, ends - starts], 0.0),
      "retriever_loss": -retriever[0],
      "reader_loss": -read[0],
      "loss": -(retriever + read)[0],
    }

  def params(tensors: Tensors) -> Params:
    return import_realm.reader_params(tensors, reader, "golden")

  return Model(params, run)


MODELS: dict[str, Callable[..., Model]] = {
  "bert_model": _bert_model,
  "bert_masked_lm": _masked_lm,
  "bert_pretraining": _masked_lm,
  "bert_token_classification": _token_classification,
  "realm_embedder": realm_embedder,
  "realm_scorer": _realm_scorer,
  "realm_scorer_untied": _realm_scorer,
  "realm_encoder": _realm_encoder,
  "realm_reader": _realm_reader,
}


class Found(NamedTuple):
  """What a model of ours gives: outputs, gradients of "loss"."""

  outputs: dict[str, jax.Array]
  gradients: dict[str, jax.Array]  # By the path of a parameter or an input.


def run(case: Golden, model: Model) -> Found:
  """Runs a model on a case, without dropout."""

  @jax.jit
  def both(params: Params, inputs: Inputs) -> Any:
    def loss(params: Params, inputs: Inputs) -> Any:
      outputs = model.run(params, inputs, True)
      return outputs["loss"], outputs

    return jax.grad(loss, (0, 1), has_aux=True)(params, inputs)

  gradients, outputs = both(model.params(case.weights), case.inputs)
  return Found(outputs, _by_path(gradients))


def outputs(
  case: Golden, model: Model, *, exact: bool = True
) -> dict[str, jax.Array]:
  """Runs a model forward only; unless `exact`, with dropout.

  That is then for the caller to make scale, as it did in the recording.
  """

  @jax.jit
  def forward(params: Params, inputs: Inputs) -> Any:
    return model.run(params, inputs, exact)

  return forward(model.params(case.weights), case.inputs)


def expected_gradients(case: Golden, model: Model) -> dict[str, np.ndarray]:
  """Returns the recorded gradients under the names of ours."""
  of_params = {
    name: value
    for name, value in case.gradients.items()
    if not name.startswith(INPUT)
  }
  of_inputs = {name: case.gradients[INPUT + name] for name in case.inputs}
  return _by_path((model.params(of_params), of_inputs))


def _by_path(tree: Any) -> dict[str, Any]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def output_distance(
  found: Mapping[str, jax.Array | np.ndarray], case: Golden, prefix: str = ""
) -> float:
  """The largest absolute difference from what is recorded."""
  return max(
    _distance(value, case.recorded[prefix + name])
    for name, value in found.items()
  )


def gradient_distance(found: Found, case: Golden, model: Model) -> float:
  """The same of gradients, but for the row of token 1 of REALM's models.

  Hugging Face takes it for padding, and drops its gradient.
  """
  expected = expected_gradients(case, model)
  if found.gradients.keys() != expected.keys():
    raise ValueError(f"{sorted(found.gradients)} is not {sorted(expected)}.")
  distances = []
  for name, value in found.gradients.items():
    ours, theirs = np.asarray(value), expected[name]
    if TOKEN_TABLE in name and "realm" in case.folder.name:
      ours, theirs = np.delete(ours, 1, axis=0), np.delete(theirs, 1, axis=0)
    distances.append(_distance(ours, theirs))
  return max(distances)


def _distance(ours: jax.Array | np.ndarray, theirs: np.ndarray) -> float:
  ours = np.asarray(ours)
  if ours.shape != theirs.shape:
    raise ValueError(f"Shapes differ: {ours.shape} and {theirs.shape}.")
  return float(np.abs(ours - theirs).max())


def main() -> None:
  """Prints the table."""
  table = Table("model", "outputs", "gradients")
  for name, make in MODELS.items():
    case = Golden.load(name)
    model = make(case, case.bert())
    found = run(case, model)
    table.add_row(
      name,
      f"{output_distance(found.outputs, case):.1e}",
      f"{gradient_distance(found, case, model):.1e}",
    )
  Console().print(table)


if __name__ == "__main__":
  main()
