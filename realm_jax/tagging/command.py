# SPDX-License-Identifier: Apache-2.0
"""`realm tag-spans`: opens what it needs, shows what it does."""

from collections.abc import Iterable, Iterator
import time
from typing import Any, Literal

import rich
from rich.progress import (
  Progress,
  SpinnerColumn,
  TextColumn,
  TimeElapsedColumn,
)
import rich.table

from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.records import Document
from realm_jax.data.sources import source_files
from realm_jax.tagging.job import read_texts, tag_spans
from realm_jax.tagging.taggers import open_tagger

_SHOWN = 3  # Commonest spans of each kind.


def run(
  *,
  source: str,
  corpus: str,
  output: str,
  tagger: str,
  dtype: Literal["float32", "bfloat16"],
  part_texts: int,
  process_id: int,
  num_processes: int,
) -> None:
  """Tags a corpus' passages or a source's documents and prints statistics.

  Args:
    source: as `read_documents` takes it; "" for a corpus.
    corpus: directory of a corpus; "" for a source.
    output: the folder to make, or to go on with.
    tagger: as `open_tagger` takes it.
    dtype: of a BERT's activations.
    part_texts: texts in each of the files.
    process_id: which of the processes this is, from 0.
    num_processes: that share the work.

  Raises:
    ValueError, OSError: as `open_tagger`, `read_texts` and `tag_spans` do;
      or not one of source and corpus was given.
  """
  if bool(source) == bool(corpus):
    raise ValueError(
      f"Give one of --source ({source!r}) and --corpus ({corpus!r})."
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"process_id ({process_id}) must be in 0..{num_processes - 1}, as "
      f"num_processes is {num_processes}."
    )
  facts: dict[str, Any] = {"source": source_files(source)} if source else {}
  if corpus:
    facts = {"corpus": PassageCorpus.open(corpus).fingerprint}
  columns = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    TimeElapsedColumn(),
  )
  with Progress(*columns) as bar:
    task = bar.add_task("Tagger")
    found = open_tagger(tagger, dtype)
    started = time.perf_counter()

    def counted(texts: Iterable[Document]) -> Iterator[Document]:
      for number, text in enumerate(texts):
        if number % part_texts == 0:
          rate = number / (time.perf_counter() - started)
          told = f"Spans: {number:,} texts, {rate:,.0f} a second"
          bar.update(task, description=told)
        yield text

    statistics = tag_spans(
      counted(read_texts(source, corpus)),
      found,
      output,
      facts=facts,
      part_texts=part_texts,
      process_id=process_id,
      num_processes=num_processes,
    )
  if statistics is None:
    print(f"{output}: this process' parts are done, and others are missing.")
    return
  _show(output, statistics)


def _show(output: str, statistics: dict[str, Any]) -> None:
  print(
    f"{output}: {statistics['texts']:,} of {statistics['texts_read']:,} texts "
    f"have spans: {statistics['spans']:,}, of {statistics['span_bytes']} bytes "
    f"in the mean, in {statistics['sentences_with_spans']:,} of "
    f"{statistics['sentences']:,} sentences."
  )
  table = rich.table.Table("kind", "spans", "commonest")
  for label, of_label in statistics["labels"].items():
    commonest = [f"{text} ({n:,})" for text, n in of_label["commonest"]]
    table.add_row(
      label, f"{of_label['spans']:,}", ", ".join(commonest[:_SHOWN])
    )
  rich.print(table)
