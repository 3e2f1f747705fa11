# SPDX-License-Identifier: Apache-2.0
"""Tests of realm_jax/models/token_classifier.py."""

import shutil

import pytest

from realm_jax.models.token_classifier import load_token_classifier


def test_a_model_without_a_head_is_refused(golden, tmp_path):
  folder = tmp_path / "bert"
  shutil.copytree(golden("bert_model").folder, folder)
  with pytest.raises(ValueError, match=r"has no classifier\.weight"):
    load_token_classifier(str(folder))
