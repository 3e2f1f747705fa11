# SPDX-License-Identifier: Apache-2.0
import pytest

from launch import gpus


@pytest.fixture(autouse=True)
def four(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,GPU-7f, 5")


def test_the_last_gpus_are_the_builders():
  trainer, builders = gpus.shares(3, builders=2)
  assert trainer == {"CUDA_VISIBLE_DEVICES": "0"}
  assert builders == [
    {"CUDA_VISIBLE_DEVICES": "2,5"},
    {"CUDA_VISIBLE_DEVICES": "GPU-7f"},
  ]


def test_a_builder_that_shares_leaves_the_trainer_its_memory():
  trainer, (builder,) = gpus.shares(0, builders=1)
  assert trainer == {}
  assert builder == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def test_without_builders_the_trainer_has_all():
  assert gpus.shares(2, builders=0) == ({}, [])


def test_without_the_variable_the_driver_is_asked(monkeypatch, tmp_path):
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
  driver = tmp_path / "nvidia-smi"
  driver.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
  driver.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
  trainer, (builder,) = gpus.shares(1, builders=1)
  assert trainer == {"CUDA_VISIBLE_DEVICES": "0,1"}
  assert builder == {"CUDA_VISIBLE_DEVICES": "2"}


@pytest.mark.parametrize(
  ("visible", "builder_gpus", "builders", "told"),
  [
    ("0,1", 2, 1, r"of 2 GPUs \(0, 1\)"),
    ("0,1,2", 1, 2, "each builder needs one"),
    ("", 1, 1, r"of 0 GPUs \(none\)"),
  ],
)
def test_what_does_not_go_round_is_refused(
  visible, builder_gpus, builders, told, monkeypatch
):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
  with pytest.raises(ValueError, match=told):
    gpus.shares(builder_gpus, builders)
