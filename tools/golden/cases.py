# SPDX-License-Identifier: Apache-2.0
"""Tiny Hugging Face models with random weights: what goes in, what comes out.

Each case returns a `Case`. Where the model has a loss of its own, gradients
are of that; elsewhere of its outputs' inner product with random numbers.
"""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any, NamedTuple

import torch
from transformers import (
  BertConfig,
  BertForMaskedLM,
  BertForPreTraining,
  BertForTokenClassification,
  BertModel,
  PreTrainedModel,
)
from transformers.models.deprecated.realm.configuration_realm import (
  RealmConfig,
)
from transformers.models.deprecated.realm.modeling_realm import (
  RealmEmbedder,
  RealmKnowledgeAugEncoder,
  RealmReader,
  RealmScorer,
)

Tensors = dict[str, torch.Tensor]

ARCHITECTURE = {
  "vocab_size": 40,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "intermediate_size": 24,
  "max_position_embeddings": 14,
  "type_vocab_size": 2,
  "layer_norm_eps": 1e-12,
  # They differ, so that one in the other's place shows.
  "hidden_dropout_prob": 0.1,
  "attention_probs_dropout_prob": 0.2,
}
REALM = {
  "retriever_proj_size": 5,
  "num_candidates": 3,
  "span_hidden_size": 6,
  "max_span_width": 3,
  "reader_beam_size": 3,
}
NUM_LABELS = 5
LENGTH = 12
ROW_LENGTHS = (12, 7, 1)  # The last row holds nothing but [CLS].


class Case(NamedTuple):
  """A model, its inputs by name, and its outputs as a function of nothing."""

  model: PreTrainedModel
  inputs: Tensors
  run: Callable[[], Tensors]  # "loss" among them.


def _generator(seed: int) -> torch.Generator:
  return torch.Generator().manual_seed(seed)


def rows(seed: int = 7) -> Tensors:
  """Returns three rows of tokens, two of them padded with 0.

  Token 1 is among them: REALM's config calls it the padding.
  """
  ids = torch.randint(
    1, 40, (len(ROW_LENGTHS), LENGTH), generator=_generator(seed)
  )
  ids[0, 3] = 1
  mask = torch.arange(LENGTH)[None] < torch.tensor(ROW_LENGTHS)[:, None]
  segments = torch.arange(LENGTH)[None].expand(ids.shape) >= 4
  return {
    "input_ids": ids * mask,
    "token_type_ids": (segments & mask).long(),
    "attention_mask": mask.long(),
  }


def randomise(model: PreTrainedModel) -> PreTrainedModel:
  """Makes every parameter matter: none stays at zero or one."""
  generator = _generator(11)
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      parameter.copy_(0.3 * noise)
    for module in model.modules():
      if isinstance(module, torch.nn.LayerNorm):
        module.weight += 1.0
  return model.eval()


@contextlib.contextmanager
def scaling_dropout() -> Iterator[None]:
  """Makes dropout multiply by 1 + rate: nothing random, yet it shows."""
  forward = torch.nn.Dropout.forward
  torch.nn.Dropout.forward = lambda self, x: x * (1 + self.p)
  try:
    yield
  finally:
    torch.nn.Dropout.forward = forward


def _with_loss(outputs: Tensors) -> Tensors:
  """Adds a third of the outputs' inner product with known numbers.

  A third, as there are three rows: gradients are then of the order of 1.
  """
  terms = [
    (value * torch.cos(torch.arange(value.numel())).reshape(value.shape)).sum()
    for value in outputs.values()
  ]
  return outputs | {"loss": torch.stack(terms).sum() / len(ROW_LENGTHS)}


def _real(values: torch.Tensor, inputs: Tensors) -> torch.Tensor:
  """Zero where there is padding: what a model says there means nothing."""
  return values * inputs["attention_mask"][..., None]


def _bert(kind: type[PreTrainedModel], **fields: Any) -> PreTrainedModel:
  config = BertConfig(**ARCHITECTURE, attn_implementation="eager", **fields)
  return randomise(kind(config))


def bert_model() -> Case:
  """States and the pooled [CLS]."""
  model, inputs = _bert(BertModel), rows()

  def run() -> Tensors:
    found = model(**inputs)
    states = _real(found.last_hidden_state, inputs)
    return _with_loss({"states": states, "pooled": found.pooler_output})

  return Case(model, inputs, run)


def _labels(inputs: Tensors, high: int) -> torch.Tensor:
  """Random labels of the real tokens; -100 elsewhere and at every third."""
  ids = inputs["input_ids"]
  labels = torch.randint(0, high, ids.shape, generator=_generator(5))
  labelled = inputs["attention_mask"].bool() & (torch.arange(LENGTH) % 3 > 0)
  return torch.where(labelled, labels, -100)


def bert_masked_lm() -> Case:
  """Logits and the masked-language loss."""
  model, inputs = _bert(BertForMaskedLM), rows()
  inputs |= {"labels": _labels(inputs, ARCHITECTURE["vocab_size"])}

  def run() -> Tensors:
    found = model(**inputs, output_hidden_states=True)
    return {
      "states": _real(found.hidden_states[-1], inputs),
      "logits": _real(found.logits, inputs),
      "loss": found.loss,
    }

  return Case(model, inputs, run)


def bert_pretraining() -> Case:
  """The layout of Google's BERT checkpoints, and the other GELU."""
  model, inputs = _bert(BertForPreTraining, hidden_act="gelu_new"), rows()
  labels = _labels(inputs, ARCHITECTURE["vocab_size"])

  def run() -> Tensors:
    found = model(**inputs, output_hidden_states=True)
    return {
      "states": _real(found.hidden_states[-1], inputs),
      "logits": _real(found.prediction_logits, inputs),
      "loss": torch.nn.functional.cross_entropy(
        found.prediction_logits.flatten(0, 1), labels.flatten()
      ),
    }

  return Case(model, inputs | {"labels": labels}, run)


def bert_token_classification() -> Case:
  """Logits of each token's label and their loss."""
  model = _bert(BertForTokenClassification, num_labels=NUM_LABELS)
  inputs = rows()
  inputs |= {"labels": _labels(inputs, NUM_LABELS)}

  def run() -> Tensors:
    found = model(**inputs)
    return {"logits": _real(found.logits, inputs), "loss": found.loss}

  return Case(model, inputs, run)


def _realm_config() -> RealmConfig:
  return RealmConfig(**ARCHITECTURE, **REALM)


def realm_embedder() -> Case:
  """Vectors of a text."""
  model, inputs = randomise(RealmEmbedder(_realm_config())), rows()
  return Case(
    model,
    inputs,
    lambda: _with_loss({"vectors": model(**inputs).projected_score}),
  )


def _scorer(query_embedder: PreTrainedModel | None) -> Case:
  model = RealmScorer(_realm_config(), query_embedder)
  randomise(model)
  query, candidates = rows(3), rows()
  asked = {name: value[:1] for name, value in query.items()}  # B = 1.
  asked |= {f"candidate_{k}": value[None] for k, value in candidates.items()}

  def run() -> Tensors:
    found = model(**asked)
    return _with_loss({"relevance_score": found.relevance_score})

  return Case(model, asked, run)


def realm_scorer() -> Case:
  """Scores of a query's candidates, by one tower."""
  return _scorer(None)


def realm_scorer_untied() -> Case:
  """The same by two towers."""
  return _scorer(RealmEmbedder(_realm_config()))


def realm_encoder() -> Case:
  """Logits beside each candidate, and the marginal loss over them."""
  model, inputs = randomise(RealmKnowledgeAugEncoder(_realm_config())), rows()
  scores = torch.tensor([[0.3, -1.0, 0.5]], requires_grad=True)
  labels = inputs["input_ids"][:1]
  mlm_mask = torch.zeros_like(labels)
  mlm_mask[0, [2, 5]] = 1
  extra = {"relevance_score": scores, "labels": labels, "mlm_mask": mlm_mask}

  def run() -> Tensors:
    candidates = {name: value[None] for name, value in inputs.items()}
    found = model(**candidates, **extra)
    return {"logits": _real(found.logits, inputs), "loss": found.loss}

  return Case(model, inputs | extra, run)


def realm_reader() -> Case:
  """Scores of the spans of three blocks, and ORQA's two losses.

  Five blocks were found, of which the first three are read.
  """
  model, inputs = randomise(RealmReader(_realm_config())), rows()
  inputs["attention_mask"][2] = inputs["attention_mask"][1]
  inputs["token_type_ids"][2] = inputs["token_type_ids"][1]
  extra = {
    "relevance_score": torch.tensor(
      [1.5, 0.7, 0.2, -0.1, -0.4], requires_grad=True
    ),
    "block_mask": inputs["token_type_ids"] == 1,
    # Two answers in the first block, one of them twice; none in the second.
    "start_positions": torch.tensor([[5, 8], [-1, -1], [4, -1]]),
    "end_positions": torch.tensor([[6, 8], [-1, -1], [5, -1]]),
    "has_answers": torch.tensor([True, False, True, False, True]),
  }
  spans: Tensors = {}

  def keep(_module: Any, _inputs: Any, found: Any) -> None:
    scores, spans["starts"], spans["ends"] = found
    inside = scores > torch.finfo(scores.dtype).min / 2
    spans["scores"] = torch.where(inside, scores, 0.0)

  model.qa_outputs.register_forward_hook(keep)

  def run() -> Tensors:
    found = model(**inputs, **extra)
    return {
      **spans,
      "retriever_loss": found.retriever_loss,
      "reader_loss": found.reader_loss,
      "loss": found.loss,
    }

  return Case(model, inputs | extra, run)


CASES: dict[str, Callable[[], Case]] = {
  case.__name__: case
  for case in (
    bert_model,
    bert_masked_lm,
    bert_pretraining,
    bert_token_classification,
    realm_embedder,
    realm_scorer,
    realm_scorer_untied,
    realm_encoder,
    realm_reader,
  )
}
