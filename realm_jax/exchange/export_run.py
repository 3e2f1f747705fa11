# SPDX-License-Identifier: Apache-2.0
"""`realm export`: a run's models and vectors for other programs.

    output/retriever/          BertModel and projection; retriever-query/ and
                               retriever-document/ where there are two towers
          /encoder/            BertForMaskedLM (stages mlm and realm)
          /reader/             BertModel and span head (stage openqa)
          /embeddings.npy      the newest index', or .safetensors
          /uids.jsonl          the passages' uids, in their order
          /params/             all parameters, by Orbax, for serving with JAX
          /run.json            the run's config

Each model's folder has its tokenizer, and a model card as README.md.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import os
import pathlib
import shutil
from typing import Any

from etils import epath
import orbax.checkpoint as ocp

from realm_jax import checkpoints, config
from realm_jax import workdir as workdirs
from realm_jax.config import RunConfig
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.eval.predictions import PREDICTIONS, figures_path
from realm_jax.exchange import hf_export, vectors
from realm_jax.exchange.model_card import model_card
from realm_jax.index import store
from realm_jax.index.corpora import open_corpora
from realm_jax.shapes import Params

PARTS = ("retriever", "encoder", "reader", "embeddings", "params")
Write = Callable[[pathlib.Path, Any, Any, Tokenizer], None]


def export_run(
  workdir: str,
  output: str,
  *,
  step: int = 0,
  parts: tuple[str, ...] = (),
  vector_format: vectors.Format = "npy",
) -> list[str]:
  """Writes a new folder; see the top of this file.

  Args:
    workdir: of the run.
    output: must not exist; it appears when it is complete.
    step: of the checkpoint; 0 for the newest.
    parts: of `PARTS`, which to write; () for all that there are.
    vector_format: of the vectors' file.

  Returns:
    What was written, by its names in `output`.

  Raises:
    FileExistsError: `output` is there.
    FileNotFoundError: no config or checkpoint; no index, if it is asked for.
    ValueError: the run has no such part, or transformers no such model.
  """
  run = workdirs.load(workdir)
  step = step or checkpoints.newest_step(workdir)
  there = _parts_of(run)
  if missing := sorted(set(parts) - set(there)):
    raise ValueError(
      f"{workdir}, of stage {run.stage!r}, has no {missing}: it has "
      f"{sorted(there)}."
    )
  with _new_folder(output) as folder:
    export = _Export(workdir, run, step, folder)
    for part in parts or there:
      if part == "embeddings":
        export.embeddings(vector_format, required=bool(parts))
      elif part == "params":
        export.params()
      else:
        export.model(part)
    (folder / "run.json").write_text(config.dumps(run) + "\n")
    return sorted(path.name for path in folder.iterdir())


def _parts_of(run: RunConfig) -> tuple[str, ...]:
  """Returns which of `PARTS` a run's stage has."""
  there = {"params"}
  if run.has_retriever:
    there |= {"retriever", "embeddings"}
  if run.stage in ("mlm", "realm"):
    there.add("encoder")
  if run.stage == "openqa":
    there.add("reader")
  return tuple(part for part in PARTS if part in there)


@contextlib.contextmanager
def _new_folder(output: str) -> Iterator[pathlib.Path]:
  """Yields a hidden folder, which gets its name if nothing fails."""
  path = pathlib.Path(os.path.abspath(output))
  if path.exists():
    raise FileExistsError(f"{output} exists: choose another --output.")
  draft = path.with_name(f".{path.name}.partial")
  shutil.rmtree(draft, ignore_errors=True)  # Of a killed export.
  draft.mkdir(parents=True)
  try:
    yield draft
    os.replace(draft, path)
  finally:
    shutil.rmtree(draft, ignore_errors=True)


class _Export:
  """Writes one part after another."""

  def __init__(
    self, workdir: str, run: RunConfig, step: int, folder: pathlib.Path
  ) -> None:
    self._workdir, self._run, self._step = workdir, run, step
    self._folder = folder
    self._tokenizer = load_tokenizer(run.data.tokenizer)

  def _restore(self, part: str) -> Params:
    return checkpoints.restore_params(self._workdir, self._step, part)

  def model(self, part: str) -> None:
    """Writes a model's folder, or two of two towers."""
    params, run = self._restore(part), self._run
    if part == "encoder":
      self._write(part, hf_export.export_encoder, params, run.encoder)
    elif part == "reader":
      self._write(part, hf_export.export_reader, params, run.encoder)
    elif "shared" in params:
      self._write(part, hf_export.export_tower, params["shared"], run.embedder)
    else:
      for side, tower in params.items():
        name = f"{part}-{side}"
        self._write(name, hf_export.export_tower, tower, run.embedder)

  def _write(self, name: str, write: Write, params: Params, arch: Any) -> None:
    folder = self._folder / name
    write(folder, params, arch, self._tokenizer)
    part = name.split("-")[0]
    card = model_card(self._run, self._step, part, self._figures())
    (folder / "README.md").write_text(card, encoding="utf-8")

  def _figures(self) -> dict[str, Any] | None:
    path = figures_path(epath.Path(self._workdir) / PREDICTIONS)
    if not path.exists():
      return None
    figures = json.loads(path.read_text())
    return figures if figures["step"] == self._step else None

  def embeddings(self, kind: vectors.Format, *, required: bool) -> None:
    """Writes the newest index' vectors; nothing where there is none."""
    if not required and not store.list_versions(self._workdir):
      return
    corpora = open_corpora(self._workdir, self._run)
    name = corpora.newest_version(self._workdir)
    corpus = corpora.of_version(name)
    version = store.open_version(self._workdir, name, self._run, corpus)
    vectors.write_vectors(self._folder, version.embeddings, kind)
    vectors.write_uids(self._folder, corpus)

  def params(self) -> None:
    """Writes all parameters as Orbax does."""
    names = [
      p for p in _parts_of(self._run) if p not in ("embeddings", "params")
    ]
    tree = {name: self._restore(name) for name in names}
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(self._folder / "params", tree)
