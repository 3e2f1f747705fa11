# SPDX-License-Identifier: Apache-2.0
"""Which library wrote a source, told by its files."""

from realm_jax.exchange import hf_realm, tf_realm
from realm_jax.exchange.hf_realm import Source


def read_source(name: str) -> Source:
  """Reads a folder, a checkpoint of TensorFlow, or a model of the hub.

  Raises:
    ValueError: it is none of REALM's models, or cannot be read.
    ImportError: it is TensorFlow's, which is not installed.
  """
  if checkpoint := tf_realm.find_checkpoint(name):
    return tf_realm.read_checkpoint(checkpoint)
  return hf_realm.read_folder(name)
