# SPDX-License-Identifier: Apache-2.0
r"""What each masking scheme hides of the demo's sentences, and of their facts.

    python -m experiments.ablations.masks --directory=ablations

reads what `make ablations` prepared.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import get_args

import numpy as np

from experiments.factbook_demo.settings import LENGTHS
from realm_jax.data.masking import Masking, choose_pieces, pieces_of
from realm_jax.data.texts import open_texts
from realm_jax.data.tokenize import load_tokenizer

SENTENCES = 2000


def shares(directory: pathlib.Path, scheme: Masking) -> tuple[float, ...]:
  """Returns means over sentences, drawn with seed 0.

  Returns:
    pieces masked; the share of them that are the fact's; and the share of the
    sentences of which any of the fact is masked.
  """
  rng = np.random.default_rng(0)
  told = open_texts(str(directory / "data" / "train_text.jsonl"))
  chosen_rows = rng.choice(len(told), SENTENCES, replace=False)
  texts = [told[int(row)] for row in chosen_rows]
  tokenizer = load_tokenizer(directory / "tokenizer")
  found = []
  for text, encoding in zip(
    texts,
    tokenizer.encode_batch([text["text"] for text in texts]),
    strict=True,
  ):
    spans = [(start, end) for start, end in text["spans"]]
    chosen = choose_pieces(scheme, encoding, spans, LENGTHS.masks, rng)
    fact = np.concatenate([pieces_of(encoding, span) for span in spans])
    shared = np.isin(chosen, fact)
    found.append((len(chosen), shared.mean(), shared.any()))
  return tuple(float(mean) for mean in np.mean(np.array(found, float), axis=0))


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--directory", type=pathlib.Path, default="ablations")
  directory = parser.parse_args(argv).directory
  print("| masked | pieces | of them the fact's | sentences with any |")
  print("| --- | ---: | ---: | ---: |")
  for scheme in get_args(Masking):
    pieces, share, some = shares(directory, scheme)
    print(f"| {scheme} | {pieces:.1f} | {share:.0%} | {some:.0%} |")


if __name__ == "__main__":
  main(sys.argv[1:])
