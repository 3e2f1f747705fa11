# SPDX-License-Identifier: Apache-2.0
"""Every test runs on 8 simulated CPU devices, with strict shapes."""

import os

# Compiling is most of a test's time: spare LLVM's optimiser. Subprocesses
# inherit it.
os.environ["XLA_FLAGS"] = (
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
  + os.environ.get("XLA_FLAGS", "")
)

import jax
import pytest

from realm_jax.data import corpus, tokenize
from realm_jax.data.records import Document

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def tiny_documents() -> list[Document]:
  """40 made-up countries: facts in 3 to 8 short sentences each."""
  syllables = ["ba", "ko", "ri", "mu", "te", "sa", "lo", "ni"]
  names = [
    (syllables[i % 8] + syllables[(i // 8 + i) % 8] + "dia").capitalize()
    for i in range(40)
  ]
  documents = []
  for i, name in enumerate(names):
    capital = (syllables[(3 * i) % 8] + syllables[i // 8] + "ton").capitalize()
    sentences = [
      f"The capital of {name} is {capital}.",
      f"It became free on {i % 28 + 1} May {1800 + 3 * i}.",
      f"{100 + 7 * i} km of road lead to {names[(i + 1) % 40]}.",
    ]
    sentences += [
      f"In {1900 + j} the harvest fell by {i + j}%." for j in range(i % 6)
    ]
    documents.append(
      Document(title=name, text=" ".join(sentences), uid=f"country-{i}")
    )
  return documents


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> tokenize.Tokenizer:
  """400 word pieces, trained on `tiny_documents`; saved in a folder."""
  texts = [f"{d.title} {d.text}" for d in tiny_documents()]
  return tokenize.train_tokenizer(
    texts, 400, tmp_path_factory.mktemp("tiny") / "tokenizer"
  )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory, tiny_tokenizer) -> corpus.PassageCorpus:
  """`tiny_documents` in passages of 48 pieces at most; the longer are split."""
  return corpus.build_corpus(
    tiny_documents(),
    tiny_tokenizer,
    tmp_path_factory.mktemp("tiny") / "corpus",
    max_pieces=48,
  )
