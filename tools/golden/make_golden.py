# SPDX-License-Identifier: Apache-2.0
"""Records tiny Hugging Face models with inputs and outputs, for parity tests.

Run it by hand, in an environment of its own, when a case is added:

  python -m venv /tmp/golden
  /tmp/golden/bin/pip install -r tools/golden/requirements.txt
  /tmp/golden/bin/python tools/golden/make_golden.py tests/models/golden

Each case is a folder as `save_pretrained` writes it (random weights) plus
`golden.safetensors` with what went in and what came out.
"""

import pathlib
import sys

from safetensors.torch import save_file
import torch
from transformers import (
  BertConfig,
  BertForMaskedLM,
  BertForPreTraining,
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
)

ARCHITECTURE = {
  "vocab_size": 40,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "intermediate_size": 24,
  "max_position_embeddings": 14,
  "type_vocab_size": 2,
  "layer_norm_eps": 1e-12,
}
SPANS = {"span_hidden_size": 6, "max_span_width": 3, "reader_beam_size": 3}
LENGTH = 12
ROW_LENGTHS = (12, 7, 1)  # The last row holds nothing but [CLS].


def inputs() -> dict[str, torch.Tensor]:
  """Returns three rows of tokens, two of them padded."""
  generator = torch.Generator().manual_seed(7)
  ids = torch.randint(1, 40, (len(ROW_LENGTHS), LENGTH), generator=generator)
  mask = torch.arange(LENGTH)[None] < torch.tensor(ROW_LENGTHS)[:, None]
  segments = torch.arange(LENGTH)[None].expand(ids.shape) >= 4
  return {
    "input_ids": ids * mask,
    "token_type_ids": (segments & mask).long(),
    "attention_mask": mask.long(),
  }


def randomise(model: PreTrainedModel) -> None:
  """Makes every parameter matter: none stays at zero or one."""
  generator = torch.Generator().manual_seed(11)
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      parameter.copy_(0.3 * noise)
    for module in model.modules():
      if isinstance(module, torch.nn.LayerNorm):
        module.weight += 1.0
  model.eval()


def record(
  folder: pathlib.Path,
  model: PreTrainedModel,
  arrays: dict[str, torch.Tensor],
) -> None:
  """Writes one case."""
  model.save_pretrained(folder)
  # Clones: safetensors refuses tensors that share memory.
  arrays = {name: value.clone() for name, value in arrays.items()}
  save_file(arrays, folder / "golden.safetensors")


def bert_cases(root: pathlib.Path) -> None:
  """Three layouts of a BERT checkpoint, and two activations."""
  for name, kind, activation in (
    ("bert_model", BertModel, "gelu"),
    ("bert_masked_lm", BertForMaskedLM, "gelu"),
    ("bert_pretraining", BertForPreTraining, "gelu_new"),
  ):
    config = BertConfig(
      **ARCHITECTURE, hidden_act=activation, attn_implementation="eager"
    )
    model = kind(config)
    randomise(model)
    rows = inputs()
    output = model(**rows, output_hidden_states=True)
    arrays = rows | {"states": output.hidden_states[-1]}
    if kind is BertModel:
      arrays["pooled"] = output.pooler_output
    elif kind is BertForMaskedLM:
      arrays["logits"] = output.logits
    else:
      arrays["logits"] = output.prediction_logits
    record(root / name, model, arrays)


def realm_cases(root: pathlib.Path) -> None:
  """The embedder, the knowledge-augmented encoder and the reader."""
  config = RealmConfig(
    **ARCHITECTURE, **SPANS, retriever_proj_size=5, num_candidates=3
  )
  rows = inputs()
  embedder = RealmEmbedder(config)
  randomise(embedder)
  vectors = embedder(**rows).projected_score
  record(root / "realm_embedder", embedder, rows | {"vectors": vectors})

  encoder = RealmKnowledgeAugEncoder(config)
  randomise(encoder)
  candidates = {name: value[None] for name, value in rows.items()}  # B = 1.
  scores = torch.tensor([[0.3, -1.0, 0.5]])
  labels = rows["input_ids"][:1]
  mlm_mask = torch.zeros_like(labels)
  mlm_mask[0, [2, 5]] = 1
  output = encoder(
    **candidates, relevance_score=scores, labels=labels, mlm_mask=mlm_mask
  )
  arrays = rows | {"scores": scores, "labels": labels, "mlm_mask": mlm_mask}
  arrays |= {"logits": output.logits, "loss": output.loss}
  record(root / "realm_encoder", encoder, arrays)

  reader = RealmReader(config)
  reader.cls = torch.nn.Identity()  # A masked-language head that it never uses.
  randomise(reader)
  block = (rows["token_type_ids"] == 1) & (rows["attention_mask"] == 1)
  scores, starts, ends = reader.qa_outputs(reader.realm(**rows)[0], block)
  arrays = rows | {"block_mask": block, "scores": scores}
  arrays |= {"starts": starts, "ends": ends}
  record(root / "realm_reader", reader, arrays)


def main() -> None:
  """Writes every case under the folder named on the command line."""
  root = pathlib.Path(sys.argv[1])
  with torch.no_grad():
    bert_cases(root)
    realm_cases(root)


if __name__ == "__main__":
  main()
