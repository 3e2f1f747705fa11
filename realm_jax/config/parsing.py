# SPDX-License-Identifier: Apache-2.0
"""Runs from flags, experiment files and JSON, and back."""

import dataclasses
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ml_collections

from realm_jax.config.run import RunConfig


def to_config_dict(run: RunConfig) -> ml_collections.ConfigDict:
  """The form that experiment files return: flags can override each field."""
  return ml_collections.ConfigDict(dataclasses.asdict(run))


def parse(raw: ml_collections.ConfigDict | dict[str, Any]) -> RunConfig:
  """Checks and freezes a config.

  Raises:
    ValueError: an unknown key, a wrong type, or a broken rule; the message
      names the key's full path, the value and what is allowed.
    FileNotFoundError: it is a --config whose file is not there.
  """
  # No isinstance: where a file is not there, what ml_collections gives in a
  # config's place raises that error here.
  raw = raw if isinstance(raw, dict) else raw.to_dict()
  return _parse_dataclass(RunConfig, raw, path="config")


def _parse_dataclass(cls: Any, raw: Any, path: str) -> Any:
  if not isinstance(raw, dict):
    raise ValueError(f"{path} must be a mapping, got {raw!r}.")
  hints = get_type_hints(cls)
  unknown = sorted(set(raw) - set(hints))
  if unknown:
    raise ValueError(
      f"{path} has unknown keys {unknown}. Known keys: {sorted(hints)}."
    )
  values = {
    name: _parse_value(hints[name], value, f"{path}.{name}")
    for name, value in raw.items()
  }
  try:
    return cls(**values)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _parse_value(hint: Any, value: Any, path: str) -> Any:
  if dataclasses.is_dataclass(hint):
    return _parse_dataclass(hint, value, path)
  if get_origin(hint) is Literal:
    if value not in get_args(hint):
      raise ValueError(
        f"{path}={value!r} is not one of {list(get_args(hint))}."
      )
    return value
  if get_origin(hint) is tuple:
    return _parse_tuple(get_args(hint)[0], value, path)
  if hint is float and type(value) is int:
    return float(value)
  if type(value) is not hint:
    raise ValueError(
      f"{path} must be {hint.__name__}, got {value!r} ({type(value).__name__})."
    )
  return value


def _parse_tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
  if not isinstance(value, tuple | list):
    raise ValueError(
      f"{path} must be a tuple of {hint.__name__}, got {value!r}."
    )
  return tuple(
    _parse_value(hint, item, f"{path}[{i}]") for i, item in enumerate(value)
  )


def dumps(run: RunConfig) -> str:
  """The resolved config as JSON, for `workdir/config.json`."""
  return json.dumps(dataclasses.asdict(run), indent=2, sort_keys=True)


def loads(text: str) -> RunConfig:
  """Inverse of `dumps`; raises ValueError as `parse` does."""
  return parse(json.loads(text))


def differences(saved: RunConfig, asked: RunConfig) -> dict[str, Any]:
  """Dotted key -> (saved, asked) for every field in which two runs differ."""
  first, second = _flatten(saved), _flatten(asked)
  return {k: (first[k], second[k]) for k in first if first[k] != second[k]}


def _flatten(run: RunConfig) -> dict[str, Any]:
  flat: dict[str, Any] = {}

  def walk(node: dict[str, Any], prefix: str) -> None:
    for name, value in node.items():
      if isinstance(value, dict):
        walk(value, f"{prefix}{name}.")
      else:
        flat[f"{prefix}{name}"] = value

  walk(dataclasses.asdict(run), "")
  return flat
