# SPDX-License-Identifier: Apache-2.0
"""`realm import`: released weights and passages become a run's workdir.

    workdir/tokenizer/      of the first source that has one
           /corpus/         the blocks, one a passage, in their order
           /checkpoints/1/  the parameters: of a run that is over
           /index/…         the published vectors, searched by our searcher

Such a workdir is asked, evaluated and started from like any other.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from realm_jax import checkpoints
from realm_jax import workdir as workdirs
from realm_jax.config import (
  DataConfig,
  LengthConfig,
  OpenQaConfig,
  RunConfig,
  Stage,
)
from realm_jax.data.block_records import (
  count_block_records,
  read_block_records,
)
from realm_jax.data.blocks import build_block_corpus
from realm_jax.data.corpus import PassageCorpus
from realm_jax.data.sources import read_documents
from realm_jax.data.tokenize import Tokenizer, load_tokenizer
from realm_jax.exchange.hf_realm import Source
from realm_jax.index.builder import build_index
from realm_jax.index.version_maker import GivenVectors
from realm_jax.models.import_realm import RealmArchitecture
from realm_jax.models.tensor_files import Tensor
from realm_jax.shapes import Params
from realm_jax.train.step import TrainState

_log = logging.getLogger(__name__)
_STEP = 1  # Of the one checkpoint, and of the run that never was.
_STAGES: dict[str, Stage] = {"encoder": "realm", "reader": "openqa"}
_QUESTION = 64  # Q: ORQA's. Longer questions are cut.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merged:
  """What all sources have together."""

  architecture: RealmArchitecture
  params: Mapping[str, Params]  # "retriever" and, of these, one or none:
  # "encoder", "reader".
  stage: Stage
  has_document_tower: bool  # Else the query's stands for it.
  block_embs: Tensor | None
  blocks: pathlib.Path | None
  tokenizer: pathlib.Path | None


def merge(sources: Sequence[Source]) -> Merged:
  """Puts the parts of several sources together.

  Raises:
    ValueError: two of them have the same part, or differ in architecture; or
      there is no tower, or both an encoder and a reader.
  """
  parts: dict[str, Params] = {}
  for source in sources:
    if twice := sorted(set(parts) & set(source.params)):
      raise ValueError(
        f"{source.name} has {twice}, as a source before it has: leave one out."
      )
    parts |= source.params
  architecture = _one_architecture(sources)
  query = parts.get("query", parts.get("tower"))
  document = parts.get("document", parts.get("tower"))
  if query is None:
    raise ValueError(
      f"{[source.name for source in sources]} have only {sorted(parts)}: "
      "without a RealmEmbedder, nothing can be searched. Add one."
    )
  if "encoder" in parts and "reader" in parts:
    raise ValueError(
      "There are an encoder, which fills masks, and a reader, which answers "
      "questions, and a run has one of them: make two workdirs."
    )
  params: dict[str, Params] = {
    name: parts[name] for name in _STAGES if name in parts
  }
  stage: Stage = next((_STAGES[name] for name in params), "ict")
  if document is None:
    document = query
  if query is document and stage != "openqa":
    params["retriever"] = {"shared": query}
  else:
    params["retriever"] = {"query": query, "document": document}
  return Merged(
    architecture=architecture,
    params=params,
    stage=stage,
    has_document_tower=bool({"document", "tower"} & set(parts)),
    block_embs=_only([s.block_embs for s in sources], "block_emb"),
    blocks=_only([s.blocks for s in sources], "block records"),
    tokenizer=next((s.tokenizer for s in sources if s.tokenizer), None),
  )


def _one_architecture(sources: Sequence[Source]) -> RealmArchitecture:
  found = {s.name: s.architecture for s in sources if s.architecture}
  if not found:
    raise ValueError(
      f"{[source.name for source in sources]} have vectors and no model: add "
      "a RealmEmbedder's folder or checkpoint."
    )
  first, *others = found
  ours = dataclasses.asdict(found[first])
  for other in others:
    theirs = dataclasses.asdict(found[other])
    differing = [
      f"{name}: {ours[name]!r} there, {theirs[name]!r} here"
      for name in ours
      if ours[name] != theirs[name]
    ]
    if differing:
      raise ValueError(
        f"{other} is of another architecture than {first}. "
        f"{'; '.join(differing)}."
      )
  return found[first]


def _only(found: Sequence[Any], name: str) -> Any:
  there = [value for value in found if value is not None]
  if len(there) > 1:
    raise ValueError(
      f"{len(there)} sources have {name}: leave all but one out."
    )
  return there[0] if there else None


def import_run(
  sources: Sequence[Source],
  workdir: str,
  *,
  blocks: str = "",
  corpus: str = "",
  tokenizer: str = "",
) -> RunConfig:
  """Makes a workdir; see the top of this file.

  Of vectors and texts a part at a time is in memory, beside what the builder
  of a corpus and of an index take for so many passages.

  Args:
    sources: whose parts are put together.
    workdir: must not be a run's yet.
    blocks: the texts of the vectors' blocks, in place of a source's own:
      block_records.npy, or blocks.tfr with titles.tfr beside it.
    corpus: a corpus that there is already, in place of any blocks.
    tokenizer: folder or name, in place of a source's own.

  Returns:
    The run's config.

  Raises:
    FileExistsError: `workdir` has a run.
    ValueError: the sources do not go together, with each other or with the
      blocks; nothing is written then.
    VersionRefused: the vectors are not those of the blocks.
  """
  merged = merge(sources)
  root = pathlib.Path(os.path.abspath(workdir))
  if (root / workdirs.CONFIG_FILE).exists():
    raise FileExistsError(
      f"{workdir} has a run already: choose another --workdir."
    )
  source = blocks or os.fspath(merged.blocks or "")
  _check_blocks(merged, source, corpus)
  loaded = load_tokenizer(_tokenizer_name(merged, tokenizer))
  _check_vocabulary(loaded, merged.architecture)
  loaded.save(root / "tokenizer")
  if source and not corpus:
    corpus = str(root / "corpus")
    passages = _build_corpus(source, loaded, corpus, merged.architecture)
    if merged.block_embs is not None:
      _check_count(len(passages), source, merged.block_embs.shape[0])
  run = _run_config(merged, root, corpus)
  workdirs.claim(root, run)
  _save(root, merged.params)
  if merged.block_embs is not None:
    titled = source.endswith(".tfr")
    reproducible = titled and merged.has_document_tower
    if not reproducible:
      _log.warning(
        "The vectors are taken as they are. To make them again needs %s: until "
        "then, edits of the corpus get vectors of another kind.",
        " and ".join(
          ["the blocks' titles (--blocks=blocks.tfr)"] * (not titled)
          + ["a RealmEmbedder as a source"] * (not merged.has_document_tower)
        ),
      )
    rows = functools.partial(_rows, merged.block_embs)
    build_index(root, given=GivenVectors(rows, reproducible))
  return run


def _rows(embs: Tensor, start: int, stop: int) -> np.ndarray:
  return np.ascontiguousarray(embs[start:stop], np.float32)


def _check_blocks(merged: Merged, source: str, corpus: str) -> None:
  """Refuses vectors without texts, or of another number of them."""
  if merged.block_embs is None:
    return
  shape, dim = tuple(merged.block_embs.shape), merged.architecture.dim
  if len(shape) != 2 or shape[1] != dim:
    raise ValueError(
      f"block_emb has shape {shape}, and vectors have {dim} numbers."
    )
  if corpus:
    found, name = len(PassageCorpus.open(corpus)), corpus
  elif source.endswith(".npy"):
    found, name = count_block_records(source), source
  elif source.endswith(".tfr"):
    return  # Its records are counted as they are read.
  elif source:
    raise ValueError(
      f"--blocks={source} is neither block_records.npy nor blocks.tfr."
    )
  else:
    raise ValueError(
      "There are vectors of blocks, and no texts of theirs: give --blocks="
      "block_records.npy or blocks.tfr, or --corpus."
    )
  _check_count(found, name, shape[0])


def _check_count(found: int, name: str, vectors: int) -> None:
  if found != vectors:
    raise ValueError(
      f"{name} has {found:,} blocks, and there are {vectors:,} vectors."
    )


def _tokenizer_name(merged: Merged, tokenizer: str) -> str:
  if tokenizer:
    return tokenizer
  if merged.tokenizer is None:
    raise ValueError(
      "No source has a tokenizer: give --tokenizer, bert-base-uncased for the "
      "published models."
    )
  return os.fspath(merged.tokenizer)


def _check_vocabulary(
  tokenizer: Tokenizer, architecture: RealmArchitecture
) -> None:
  if tokenizer.vocab_size != architecture.bert.vocab_size:
    raise ValueError(
      f"The tokenizer has {tokenizer.vocab_size} pieces, and the models "
      f"{architecture.bert.vocab_size}: they do not belong together."
    )


def _build_corpus(
  source: str,
  tokenizer: Tokenizer,
  directory: str,
  architecture: RealmArchitecture,
) -> PassageCorpus:
  blocks = (
    read_block_records(source)
    if source.endswith(".npy")
    else read_documents(source)
  )
  columns = (TextColumn("{task.description}"), TimeElapsedColumn())
  with Progress(*columns) as bar:
    task = bar.add_task("Corpus")

    def show(count: int) -> None:
      bar.update(task, description=f"Corpus: {count:,} passages")

    return build_block_corpus(
      blocks, tokenizer, directory, architecture.joint, show
    )


def _run_config(merged: Merged, root: pathlib.Path, corpus: str) -> RunConfig:
  found = merged.architecture
  # Fine-tuning has two towers whatever `shared` says. Where it says the same
  # as in pre-training, vectors are known to be the same.
  shared = merged.stage == "openqa" or "shared" in merged.params["retriever"]
  embedder = dataclasses.replace(found.embedder, shared=shared)
  longest = found.bert.max_positions
  lengths = LengthConfig()  # REALM's, of a sentence and a passage.
  query, joint = lengths.query, lengths.joint
  if merged.stage == "openqa":
    query, joint = _QUESTION, found.joint
  return RunConfig(
    stage=merged.stage,
    num_steps=_STEP,
    data=DataConfig(tokenizer=str(root / "tokenizer"), corpus=corpus),
    lengths=LengthConfig(
      query=min(query, joint - 1, longest - 1),
      passage=min(lengths.passage, longest),
      joint=min(joint, longest),
    ),
    embedder=embedder,
    encoder=found.bert,
    openqa=OpenQaConfig(
      beam=found.beam,
      read=found.read,
      max_span=found.max_span,
      span_width=found.span_width,
    ),
  )


def _save(root: pathlib.Path, params: Mapping[str, Params]) -> None:
  """Writes the one checkpoint: without an optimiser's state."""
  state = TrainState(
    step=jnp.asarray(_STEP, jnp.int32),
    params=jax.tree.map(jnp.asarray, dict(params)),
    opt_state=(),
  )
  with checkpoints.CheckpointWriter(root, keep=1) as writer:
    writer.save(_STEP, state, checkpoints.RunPosition(data_state={}))
    writer.wait()
  workdirs.mark_done(root, _STEP)
