# SPDX-License-Identifier: Apache-2.0
"""Counts from the text of a compiled program: products, bytes, collectives.

XLA's own cost analysis counts the body of a loop once, however often it runs,
and tells nothing of collectives. This follows the calls, with loops as often
as they run. All counts are one device's.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import math
import re

import numpy as np

_BYTES = {"pred": 1, "bf16": 2} | {
  f"{kind}{bits}": bits // 8
  for kind in ("f", "s", "u", "c")
  for bits in (8, 16, 32, 64, 128)
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(
  r"^\s+(?:ROOT )?%(?P<name>[\w.\-]+) = "
  r"(?P<shape>\((?:[^()]|\([^()]*\))*\)|\S+) (?P<op>[a-z][\w\-]*)\((?P<rest>.*)"
)
# An array of all devices: its shape before and, if need be, a transposition.
_TILED = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_MESH_AXIS = re.compile(r"'(\w+)'=(\d+)")
_AXES = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
# Where an instruction names what it runs.
_CALLS = {"while": "body", "call": "to_apply", "fusion": "calls"}
COLLECTIVES = (
  *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
  "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """Arrays that a group of devices exchanges.

  Attributes:
    op: one of `COLLECTIVES`.
    num_bytes: of the arrays as they are when whole.
    members: of a group.
    stride: between one member's number and the next one's.
    times: how often in a run of the program.
  """

  op: str
  num_bytes: int
  members: int
  stride: int
  times: int = 1


@dataclasses.dataclass(frozen=True)
class Counts:
  """What a run of a program does, on one device.

  Attributes:
    flops: of its matrix products, a multiply-add being two.
    product_bytes: that they read and write.
    collectives: that it takes part in.
  """

  flops: float = 0.0
  product_bytes: float = 0.0
  collectives: tuple[Collective, ...] = ()

  def __add__(self, other: "Counts") -> "Counts":
    return Counts(
      self.flops + other.flops,
      self.product_bytes + other.product_bytes,
      self.collectives + other.collectives,
    )

  def repeated(self, times: int) -> "Counts":
    """Returns the counts of as many runs."""
    return Counts(
      self.flops * times,
      self.product_bytes * times,
      tuple(
        dataclasses.replace(each, times=each.times * times)
        for each in self.collectives
      ),
    )


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  op: str
  rest: str  # From the operands on.

  @property
  def operands(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.rest.split(")")[0])

  def attribute(self, name: str) -> str:
    """Returns a computation's name, or "" where there is no such attribute."""
    found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
    return found[1] if found else ""

  def axes(self, name: str) -> list[int]:
    found = re.search(rf"\b{name}={{([\d,]+)}}", self.rest)
    return _numbers(found[1]) if found else []


def count(text: str) -> Counts:
  """Counts a run of a compiled program, given as `Compiled.as_text()`."""
  computations, entry = _parse(text)

  @functools.cache
  def of_computation(name: str) -> Counts:
    instructions = computations[name]
    shapes = {each.name: each.shape for each in instructions}
    total = Counts()
    for each in instructions:
      total += _own(each, shapes)
      if each.op in _CALLS:
        called = of_computation(each.attribute(_CALLS[each.op]))
        if each.op == "while":
          condition = computations[each.attribute("condition")]
          called = called.repeated(_trips(condition))
        total += called
    return total

  return of_computation(entry)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """Returns the instructions of each computation, and the entry's name."""
  computations: dict[str, list[_Instruction]] = {}
  entry, current = "", []
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif found := _INSTRUCTION.match(line):
      current.append(_Instruction(**found.groupdict()))
  return computations, entry


def _own(each: _Instruction, shapes: Mapping[str, str]) -> Counts:
  """Returns the counts of an instruction, without what it calls."""
  op = each.op.removesuffix("-start")
  if op in COLLECTIVES:
    return Counts(collectives=(_collective(op, each),))
  if op != "dot":
    return Counts()
  arrays = [each.shape, *(shapes[name] for name in each.operands)]
  (_, out), (_, left), _ = (next(_arrays(array)) for array in arrays)
  summed = math.prod(left[axis] for axis in each.axes("lhs_contracting_dims"))
  return Counts(
    flops=2.0 * math.prod(out) * summed,
    product_bytes=float(sum(map(_num_bytes, arrays))),
  )


def _collective(op: str, each: _Instruction) -> Collective:
  group = _first_group(each.rest)
  stride = abs(group[1] - group[0]) if len(group) > 1 else 1
  size = _num_bytes(each.shape)
  if op == "reduce-scatter":
    size *= len(group)  # Its result is a share.
  return Collective(op, size, len(group), stride)


def _first_group(text: str) -> list[int]:
  """Returns the devices of the first group, however they are written."""
  if listed := re.search(r"replica_groups={{([\d,]+)}", text):
    return _numbers(listed[1])
  if tiled := re.search(rf"replica_groups=\[([\d,]+)\]<={_TILED}", text):
    shape, *devices = tiled.groups()
    return _devices(*devices).reshape(_numbers(shape))[0].tolist()
  if mesh := re.search(
    rf"replica_groups=mesh\[(.*?)\](?:, device_ids=\({_TILED}\))? {{(.*?)}}",
    text,
  ):
    return _along_axes(*mesh.groups())
  if pairs := re.search(r"source_target_pairs={{([\d,]+)}", text):
    return _numbers(pairs[1])
  return [0]


def _devices(shape: str, order: str | None) -> np.ndarray:
  sizes = _numbers(shape)
  devices = np.arange(math.prod(sizes)).reshape(sizes)
  return devices.transpose(_numbers(order)) if order else devices


def _along_axes(
  mesh: str, shape: str | None, order: str | None, axes: str
) -> list[int]:
  """Returns the first group along axes such as `'axis_0','axis_1':(2)4`.

  The latter is a part of an axis: 2 times 4 devices into it.
  """
  sizes = {name: int(size) for name, size in _MESH_AXIS.findall(mesh)}
  devices = _devices(shape or str(math.prod(sizes.values())), order)
  split: list[int] = []  # Sizes of the mesh' axes, parts of axes apart.
  chosen: list[int] = []  # Which of them the group runs along.
  parts = {name: (before, size) for name, before, size in _AXES.findall(axes)}
  for name, size in sizes.items():
    before, here = parts.get(name, ("", "1"))
    before, here = int(before or 1), int(here or size)
    if name in parts:
      chosen.append(len(split) + 1)
    split += [before, here, size // (before * here)]
  devices = devices.reshape(split)
  return (
    devices[tuple(slice(None) if i in chosen else 0 for i in range(len(split)))]
    .reshape(-1)
    .tolist()
  )


def _numbers(listed: str) -> list[int]:
  return [int(number) for number in listed.split(",")]


def _trips(condition: Sequence[_Instruction]) -> int:
  """Returns how often a loop runs that counts from 0 up to a constant."""
  limits = [
    int(each.rest.split(")")[0])
    for each in condition
    if each.op == "constant" and each.shape.startswith("s32[]")
  ]
  return max(limits, default=1)


def _arrays(shape: str) -> Iterator[tuple[str, list[int]]]:
  for dtype, sizes in _ARRAY.findall(shape):
    yield dtype, [int(size) for size in sizes.split(",")] if sizes else []


def _num_bytes(shape: str) -> int:
  return sum(
    _BYTES.get(dtype, 0) * math.prod(sizes) for dtype, sizes in _arrays(shape)
  )
