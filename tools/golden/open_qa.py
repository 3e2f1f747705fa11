# SPDX-License-Identifier: Apache-2.0
"""A released model in small: RealmForOpenQA with blocks, and what it answers.

The folder has the files of google/realm-orqa-nq-openqa, as transformers writes
them: weights with `block_emb`, `block_records.npy`, the tokenizer.
"""

import pathlib

from cases import ARCHITECTURE, REALM, Tensors, randomise
import numpy as np
import torch
from transformers.models.deprecated.realm.configuration_realm import (
  RealmConfig,
)
from transformers.models.deprecated.realm.modeling_realm import RealmForOpenQA
from transformers.models.deprecated.realm.retrieval_realm import (
  RealmRetriever,
)
from transformers.models.deprecated.realm.tokenization_realm_fast import (
  RealmTokenizerFast,
)

NAMES = ("Bako", "Rimu", "Tesa", "Loni", "Koba", "Muri", "Sate", "Nilo")
QUESTIONS = (
  "What is the capital of Bakodia?",
  "How many rivers has Tesadia?",
  "In which year did Muridia become free?",
  "Who?",
  "Which rivers are there, and which capital has the land of Nilodia?",
)
LONGEST = 40  # Of question and block together: some blocks are cut.


def _blocks() -> list[str]:
  """Texts without articles: alone, these are no answer to our evaluation."""
  blocks = []
  for i in range(3 * len(NAMES)):
    name, other = NAMES[i % 8], NAMES[(3 * i + i // 8) % 8]
    blocks.append(
      (
        f"{name}dia has {other}ton for its capital.",
        f"{name}dia became free in 18{10 + i}, and has {i} rivers.",
        f"There are {i} rivers. In {name}dia land is free, and its capital, "
        f"{other}ton, has become that in 18{10 + i}.",
      )[i // 8]
    )
  return blocks


def _vocabulary() -> list[str]:
  words = set("abcdefghijklmnopqrstuvwxyz0123456789.,?")
  words |= {f"##{letter}" for letter in sorted(words)}
  words |= {name.lower() for name in NAMES} | {"##dia", "##ton", "18"}
  for text in (*_blocks(), *QUESTIONS):
    for word in text.lower().strip(".?,").replace(",", "").split():
      if word.isalpha() and not word.endswith(("dia", "ton")):
        words.add(word)
  specials = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  return [*specials, *sorted(words)]


def record(folder: pathlib.Path) -> Tensors:
  """Writes the model; returns what is to be recorded of it."""
  folder.mkdir(parents=True, exist_ok=True)
  vocabulary = folder / "vocab.txt"
  vocabulary.write_text("".join(f"{word}\n" for word in _vocabulary()))
  tokenizer = RealmTokenizerFast(str(vocabulary), do_lower_case=True)
  blocks = np.array([block.encode() for block in _blocks()], dtype=object)
  retriever = RealmRetriever(blocks, tokenizer)
  config = RealmConfig(
    **ARCHITECTURE
    | REALM
    | {
      "vocab_size": len(_vocabulary()),
      "max_position_embeddings": 48,
      "reader_seq_len": LONGEST,
      "num_block_records": len(blocks),
      "searcher_beam_size": 6,
    }
  )
  model = randomise(RealmForOpenQA(config, retriever))
  with torch.no_grad():  # One span stands out, as after training.
    model.reader.qa_outputs.dense_output.weight *= 10
  generator = torch.Generator().manual_seed(13)
  model.block_emb.copy_(torch.randn(model.block_emb.shape, generator=generator))
  # As the released ones are: `safe_serialization` refuses shared tensors.
  model.save_pretrained(folder, safe_serialization=False)
  retriever.save_pretrained(folder)
  return _answers(model, tokenizer)


def _answers(model: RealmForOpenQA, tokenizer: RealmTokenizerFast) -> Tensors:
  found: Tensors = {}
  with torch.no_grad():
    for i, question in enumerate(QUESTIONS):
      asked = tokenizer([question], return_tensors="pt")
      read, answer = model(**asked, return_dict=False)
      vector = model.embedder(**asked).projected_score[0]
      scores, ids = torch.topk(model.block_emb @ vector, 3)
      text = tokenizer.decode(asked.input_ids[0], skip_special_tokens=True)
      found |= {
        f"{i}.question": torch.tensor(list(text.encode()), dtype=torch.uint8),
        f"{i}.blocks": ids,
        f"{i}.scores": scores,
        f"{i}.block": ids[read.block_idx],
        f"{i}.answer": answer,
      }
  return found
