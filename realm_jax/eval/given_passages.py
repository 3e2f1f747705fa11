# SPDX-License-Identifier: Apache-2.0
"""Passages of the user's own, in place of those that a search finds."""

from collections.abc import Iterator, Sequence
import contextlib
import tempfile
import textwrap

from realm_jax.config import RunConfig
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.tokenize import Tokenizer


@contextlib.contextmanager
def passages_given(
  passages: Sequence[str], run: RunConfig, tokenizer: Tokenizer
) -> Iterator[PassageCorpus | None]:
  """Makes a corpus of texts that lasts as long as the context.

  Yields:
    Passages in the order of the texts, without titles; None of no texts.

  Raises:
    ValueError: a text is no passage: it is empty or too long.
  """
  if not passages:
    yield None
    return
  longest = run.lengths.passage - 3  # [CLS] and two [SEP].
  for text, encoding in zip(
    passages, tokenizer.encode_batch(passages), strict=True
  ):
    if not 0 < len(encoding) <= longest:
      raise ValueError(
        f"--passage={textwrap.shorten(text, 60)!r} has {len(encoding)} word "
        f"pieces, and a passage of this run has 1 to {longest} (lengths."
        "passage less 3): shorten it, or give it in parts."
      )
  documents = [
    Document(title="", text=text, uid=f"passage {number}")
    for number, text in enumerate(passages, start=1)
  ]
  with tempfile.TemporaryDirectory() as folder:
    yield build_corpus(
      documents, tokenizer, f"{folder}/corpus", run.lengths.passage
    )


def check_room(num_pieces: int, given: PassageCorpus, run: RunConfig) -> None:
  """Refuses passages that an encoder would not read to their end.

  Args:
    num_pieces: of the text that is read beside each.
    given: the passages.
    run: the config.

  Raises:
    ValueError: the longest and the text are too long together.
  """
  query, passage = num_pieces + 2, int(given.lengths.max()) + 1
  if query + passage > run.lengths.joint:
    raise ValueError(
      f"A text of {query} tokens and a passage of {passage} exceed the "
      f"encoder's {run.lengths.joint} (lengths.joint): shorten either."
    )
