# SPDX-License-Identifier: Apache-2.0
"""Whether transformers loads what `realm export` writes, and gets the same.

    make golden-export

Hugging Face's model was imported here, exported as BERT, and is loaded by
transformers as that: beside the model it once was, it must say the same.
"""

import pathlib
import sys

import open_qa
from safetensors.torch import load_file
import torch
from transformers import (
  AutoTokenizer,
  BertForMaskedLM,
  BertModel,
  PreTrainedModel,
)
from transformers.models.deprecated.realm.modeling_realm import RealmForOpenQA
from transformers.models.deprecated.realm.tokenization_realm_fast import (
  RealmTokenizerFast,
)

TOLERANCE = 1e-5


def load(kind: type[PreTrainedModel], folder: pathlib.Path) -> PreTrainedModel:
  """Loads a model; a tensor too many or too few is an error."""
  model, info = kind.from_pretrained(folder, output_loading_info=True)
  problems = {name: found for name, found in info.items() if found}
  if problems:
    raise ValueError(f"{folder}: {problems}")
  return model.eval()


def vector_error(
  original: RealmForOpenQA, folder: pathlib.Path, asked: dict[str, torch.Tensor]
) -> float:
  """The largest difference of a vector of the exported tower."""
  model = load(BertModel, folder)
  head = load_file(folder / "projection.safetensors")
  pooled = model(**asked).pooler_output
  projected = torch.nn.functional.linear(
    pooled, head["cls.dense.weight"], head["cls.dense.bias"]
  )
  vector = torch.nn.functional.layer_norm(
    projected,
    projected.shape[-1:],
    head["cls.LayerNorm.weight"],
    head["cls.LayerNorm.bias"],
    eps=1e-12,
  )
  expected = original.embedder(**asked).projected_score
  return float((vector - expected).abs().max())


def logit_error(
  original: RealmForOpenQA, folder: pathlib.Path, asked: dict[str, torch.Tensor]
) -> float:
  """The largest difference of a logit of the exported encoder."""
  model = load(BertForMaskedLM, folder)
  bert = original.reader.realm
  head = original.reader.cls.predictions
  states = head.transform(bert(**asked).last_hidden_state)
  table = bert.embeddings.word_embeddings.weight
  expected = states @ table.T + head.bias
  return float((model(**asked).logits - expected).abs().max())


def main() -> int:
  """Compares each question; prints the largest differences."""
  source, exported = map(pathlib.Path, sys.argv[1:])
  original = RealmForOpenQA.from_pretrained(source).eval()
  before = RealmTokenizerFast.from_pretrained(source)
  largest = {"retriever": 0.0, "encoder": 0.0}
  with torch.no_grad():
    for question in open_qa.QUESTIONS:
      asked = before([question], return_tensors="pt")
      for part, error_of in (
        ("retriever", vector_error),
        ("encoder", logit_error),
      ):
        folder = exported / part
        after = AutoTokenizer.from_pretrained(folder)
        if after([question])["input_ids"] != asked.input_ids.tolist():
          raise ValueError(f"{folder}: other pieces of {question!r}.")
        error = error_of(original, folder, dict(asked))
        largest[part] = max(largest[part], error)
  print(largest)
  return int(max(largest.values()) > TOLERANCE)


if __name__ == "__main__":
  sys.exit(main())
