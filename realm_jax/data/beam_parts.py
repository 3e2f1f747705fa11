# SPDX-License-Identifier: Apache-2.0
"""The parts of a corpus, made by an Apache Beam pipeline: for clusters.

The transforms are those of `workers`, so the parts are the same. Workers need
this package, and the source and the parts' folder under the same paths.
"""

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from realm_jax.data.parts import PARTS, Chunk, PartMaker, file_chunks
from realm_jax.data.sources import source_paths


def make_parts(
  source: str,
  folder: pathlib.Path,
  max_pieces: int,
  options: Sequence[str],
) -> list[str]:
  """Makes the parts that are not there; returns the names of all.

  Args:
    source: as `read_documents` takes it; each file is read by one worker.
    folder: of the parts, which `begin` has made.
    max_pieces: P.
    options: of the pipeline, such as "--runner=DirectRunner".

  Raises:
    ValueError, OSError: as reading and `PartMaker.make` raise them.
  """
  with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
    _ = (
      pipeline
      | "Files" >> beam.Create(list(enumerate(source_paths(source))))
      | "Chunks" >> beam.FlatMap(_chunks)
      # A file's chunks go to any worker.
      | "Share out" >> beam.Reshuffle()
      | "Cut" >> beam.ParDo(_Cut(str(folder), max_pieces))
    )
  return sorted(path.name for path in folder.glob(PARTS))


def _chunks(numbered: tuple[int, str]) -> Iterator[Any]:
  file, path = numbered
  for chunk in file_chunks(file, path):
    yield tuple(chunk)  # Beam would take a named tuple for a row of columns.


class _Cut(beam.DoFn):
  def __init__(self, folder: str, max_pieces: int) -> None:
    self._folder, self._max_pieces = pathlib.Path(folder), max_pieces

  def setup(self) -> None:
    self._maker = PartMaker(self._folder, self._max_pieces)

  def process(self, element: Any) -> None:
    chunk = Chunk(*element)
    if not (self._folder / chunk.name).exists():
      self._maker.make(chunk)
