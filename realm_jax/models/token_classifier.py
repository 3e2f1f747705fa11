# SPDX-License-Identifier: Apache-2.0
"""BERT with a label for each token: Hugging Face's token classification."""

from typing import NamedTuple

from etils import epath
from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from realm_jax.config import BertConfig
from realm_jax.models import bert, import_bert
from realm_jax.shapes import Params


class TokenClassifier(nn.Module):
  """One score for each token and label."""

  config: BertConfig
  num_labels: int

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "n T"],
    segments: Int[Array, "n T"],
    mask: Bool[Array, "n T"],
    *,
    deterministic: bool,
  ) -> Float[Array, "n T labels"]:
    """Returns float32 logits; those at padded places mean nothing."""
    states = bert.BertEncoder(self.config, name="bert")(
      ids, segments, mask, deterministic=deterministic
    )
    head = nn.Dense(
      self.num_labels,
      dtype=jnp.float32,
      kernel_init=bert.BERT_INIT,
      name="classifier",
    )
    return head(states.astype(jnp.float32))


class LoadedClassifier(NamedTuple):
  """A checkpoint as it was trained: what it is, its weights, its labels."""

  folder: epath.Path
  config: BertConfig
  params: Params
  labels: tuple[str, ...]


def load_token_classifier(source: str) -> LoadedClassifier:
  """Reads a `BertForTokenClassification`.

  Args:
    source: a folder with config.json, whose `id2label` names the labels, and
      model.safetensors; or the name of such a model on the Hugging Face hub.

  Raises:
    ValueError: no such checkpoint, not BERT's, or without a head or labels.
  """
  found = import_bert.read_checkpoint(source)
  parts = import_bert.from_tensors(
    found.tensors, found.config, str(found.folder)
  )
  if "classifier" not in parts:
    raise ValueError(
      f"{found.folder} has no classifier.weight: it is no model for token "
      "classification."
    )
  head = parts["classifier"]
  labels = _labels(found, len(head["bias"]))
  shape = (found.config.hidden_size, len(labels))
  if head["kernel"].shape != shape:
    raise ValueError(
      f"{found.folder}: classifier.weight has shape "
      f"{head['kernel'].shape[::-1]} instead of {shape[::-1]}."
    )
  params = {"bert": parts["bert"], "classifier": head}
  return LoadedClassifier(found.folder, found.config, params, labels)


def _labels(found: import_bert.Checkpoint, count: int) -> tuple[str, ...]:
  named = found.settings.get("id2label", {})
  labels = tuple(str(named.get(str(i), "")) for i in range(count))
  if not all(labels) or len(named) != count:
    raise ValueError(
      f"{found.folder / 'config.json'}: id2label must name the {count} labels "
      f"0 to {count - 1} that the head has, got {named!r}."
    )
  return labels
