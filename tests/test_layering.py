# SPDX-License-Identifier: Apache-2.0
"""The packages import downwards only, and the host side stays free of JAX."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "realm_jax"
LAYERS = (
  ("shapes",),
  ("config",),
  ("files", "gcs", "cluster"),
  ("checksums", "roll_call", "watchdog"),
  ("mirror",),
  ("allocator", "sharding", "forward", "hosts", "checkpoints"),
  ("workdir",),
  ("models",),
  ("objectives",),
  ("data",),
  ("tagging",),
  ("index",),
  ("train",),
  ("plan",),
  ("eval",),
  ("exchange",),
  ("commands",),
  ("cli",),
)
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path):
  tree = ast.parse(path.read_text(encoding="utf-8"))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module or ""
      if node.module == "realm_jax":
        yield from (f"realm_jax.{alias.name}" for alias in node.names)


def layer_of(module):
  parts = module.split(".")
  return parts[1] if parts[0] == "realm_jax" and len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.name))
def test_a_package_imports_only_what_stands_below_it(path):
  own = path.relative_to(PACKAGE).with_suffix("").parts[0]
  if own == "__init__":
    return
  for module in imported_modules(path):
    layer = layer_of(module)
    if layer is not None and layer != own:
      assert LEVEL[layer] < LEVEL[own], f"{path} imports {module}"


@pytest.mark.parametrize(
  "path", sorted((PACKAGE / "data").glob("*.py")), ids=lambda p: p.name
)
def test_the_data_package_does_not_import_jax(path):
  heads = {module.split(".")[0] for module in imported_modules(path)}
  assert not heads & {"jax", "flax", "optax", "orbax"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.name))
def test_nothing_needs_torch_or_tensorflow_to_run(path):
  heads = {module.split(".")[0] for module in imported_modules(path)}
  assert not heads & {"torch", "tensorflow"}
