# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's REALM models -> our parameters, every tensor named.

`RealmEmbedder`, `RealmKnowledgeAugEncoder` and `RealmReader`, on their own or
inside `RealmScorer` and `RealmForOpenQA`. Two of them carry a masked-language
head that they never use, and whose tensors mean nothing: it is left out.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from etils import epath
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.checkpoints import check_same_architecture
from realm_jax.config import BertConfig, EmbedderConfig
from realm_jax.models.embedder import Embedder
from realm_jax.models.import_bert import (
  from_tensors,
  read_architecture,
  read_settings,
)
from realm_jax.models.reader import SPAN_NORM_EPS, SpanReader
from realm_jax.models.tensor_files import Tensor
from realm_jax.shapes import Params

_UNUSED_HEAD = "cls.predictions."
# RealmArchitecture's field <- config.json's.
_FIELDS = {
  "dim": "retriever_proj_size",
  "max_span": "max_span_width",
  "span_width": "span_hidden_size",
  "read": "reader_beam_size",
  "beam": "searcher_beam_size",
  "joint": "reader_seq_len",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealmArchitecture:
  """What REALM's models are made of; names as in `config`."""

  bert: BertConfig
  dim: int = 128  # D
  max_span: int = 10  # W
  span_width: int = 256
  read: int = 5  # R
  beam: int = 5000  # C
  joint: int = 320  # T: of a question and a block.
  head_norm_eps: float = 1e-12

  @property
  def embedder(self) -> EmbedderConfig:
    """Of each tower."""
    return EmbedderConfig(
      bert=self.bert, dim=self.dim, head_norm_eps=self.head_norm_eps
    )

  @property
  def reader(self) -> SpanReader:
    """The reader's module."""
    return SpanReader(
      self.bert, max_span=self.max_span, span_width=self.span_width
    )


def read_realm_architecture(path: epath.Path) -> RealmArchitecture:
  """Reads the `config.json` of one of REALM's models.

  What it says of special tokens is not read: its padding is another than the
  vocabulary's.

  Raises:
    ValueError: it is unreadable, not REALM's, lacks a field, or asks for
      something that is not here.
  """
  bert = BertConfig(**read_architecture(path, "realm"))
  raw: dict[str, Any] = read_settings(path, "realm")
  absent = sorted(set(_FIELDS.values()) - set(raw))
  if absent:
    raise ValueError(f"{path} lacks the fields {absent}.")
  eps = raw.get("reader_layer_norm_eps", SPAN_NORM_EPS)
  if eps != SPAN_NORM_EPS:
    raise ValueError(
      f"{path}: reader_layer_norm_eps={eps}, and the reader here has "
      f"{SPAN_NORM_EPS}."
    )
  return RealmArchitecture(
    bert=bert,
    # Hugging Face's projection has BERT's epsilon; the original has 1e-3.
    head_norm_eps=bert.norm_eps,
    **{ours: raw[theirs] for ours, theirs in _FIELDS.items()},
  )


def embedder_params(
  tensors: Mapping[str, Tensor], config: EmbedderConfig, source: str
) -> Params:
  """Returns `Embedder`'s parameters from `RealmEmbedder`'s tensors.

  Raises:
    ValueError: a tensor is missing, unexpected or of another shape.
  """
  found = from_tensors(_used(tensors), config.bert, source)
  _require(found, ("pooler", "head"), source)
  tower = {
    "bert": found["bert"],
    "head": {"pooler": found["pooler"], **found["head"]},
  }
  check_same_architecture(tower, _shapes(Embedder(config)), source)
  return tower


def scorer_params(
  tensors: Mapping[str, Tensor], config: EmbedderConfig, source: str
) -> dict[str, Params]:
  """Returns the towers, as `embedder.tower` takes them, from `RealmScorer`'s.

  One, shared, where the query's is the document's, or is not there.

  Raises:
    ValueError: a tensor is missing, unexpected or of another shape.
  """
  document = part(tensors, "embedder.")
  query = part(tensors, "query_embedder.")
  document_params = embedder_params(document, config, source)
  if not query or _equal(query, document):
    return {"shared": document_params}
  return {
    "query": embedder_params(query, config, source),
    "document": document_params,
  }


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
  """Returns the tensors whose names begin so, without that beginning."""
  return {
    name.removeprefix(prefix): tensor
    for name, tensor in tensors.items()
    if name.startswith(prefix)
  }


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
  return first.keys() == second.keys() and all(
    np.array_equal(np.asarray(first[name]), np.asarray(second[name]))
    for name in first
  )


def encoder_params(
  tensors: Mapping[str, Tensor], config: BertConfig, source: str
) -> Params:
  """Returns `KnowledgeAugmentedEncoder`'s, from its namesake's tensors.

  Raises:
    ValueError: a tensor is missing, unexpected or of another shape.
  """
  found = from_tensors(tensors, config, source)
  _require(found, ("mlm_head",), source)
  return {name: found[name] for name in ("bert", "mlm_head")}


def reader_params(
  tensors: Mapping[str, Tensor], reader: SpanReader, source: str
) -> Params:
  """Returns the parameters of `reader` from `RealmReader`'s tensors.

  Raises:
    ValueError: a tensor is missing, unexpected or of another shape.
  """
  found = from_tensors(_used(tensors), reader.config, source)
  _require(found, ("span_head",), source)
  params = {name: found[name] for name in ("bert", "span_head")}
  mask = jnp.ones((1, 1), bool)
  check_same_architecture(params, _shapes(reader, block_mask=mask), source)
  return params


def _used(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  return {
    name: tensor
    for name, tensor in tensors.items()
    if not name.startswith(_UNUSED_HEAD)
  }


def _require(
  found: Mapping[str, Params], parts: tuple[str, ...], source: str
) -> None:
  missing = [part for part in parts if part not in found]
  if missing:
    raise ValueError(
      f"{source} has no {' and no '.join(missing)}, only {sorted(found)}: it "
      "is another kind of model."
    )


def _shapes(module: nn.Module, **inputs: jax.Array) -> Params:
  ids = jnp.zeros((1, 1), jnp.int32)
  init = functools.partial(module.init, deterministic=True)
  tree = jax.eval_shape(
    init, jax.random.key(0), ids, ids, ids.astype(bool), **inputs
  )
  return tree["params"]
