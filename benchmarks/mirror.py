# SPDX-License-Identifier: Apache-2.0
"""A host's copy of a folder: megabytes a second, and memory.

  python -m benchmarks.mirror --place=gs://bucket/tmp
  REALM_COPY=/nfs REALM_CACHE=/scratch python -m benchmarks.mirror --place=/nfs

Puts a folder with a corpus' shares of large and small files at --place, copies
it as whoever opens it would, and opens the copy again, when it is compared
with its checksums alone. Each is done in a process of its own, whose memory is
its greatest resident size. CPU time is given beside that of the clock, for
other work changes it less. The system may have the files in memory.
"""

from collections.abc import Callable, Sequence
import multiprocessing
import pathlib
import tempfile
import time
import uuid

from absl import app, flags
from etils import epath
import numpy as np

from realm_jax import files
from realm_jax.checksums import StoredFile, describe_folder
from realm_jax.mirror import CORPORA, HostCopy

_PLACE = flags.DEFINE_string("place", None, "A URL, or below $REALM_COPY.")
_MEGABYTES = flags.DEFINE_integer("megabytes", 1000, "Of the folder.")
# Of 22,800 passages of SQuAD.
_SHARES = {
  "passages.array_record": 0.62,
  "tokens.bin": 0.32,
  "offsets.npy": 0.03,
  "uid_hashes.npy": 0.03,
}
_BLOCK = 10**6


def _lay(place: str, blocks: int) -> list[StoredFile]:
  """Puts the folder there; returns what is known of its files."""
  content = np.random.default_rng(0)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for path, share in _SHARES.items():
      with (folder / path).open("wb") as file:
        for _ in range(int(share * blocks)):
          file.write(content.bytes(_BLOCK))
      files.upload(folder / path, f"{place}/{path}")
    return list(describe_folder(folder, folder))


def _fetch(place: str, stored: Sequence[StoredFile]) -> None:
  copy = HostCopy(CORPORA, place)
  with copy.in_use():
    copy.fetch(stored, checksums=True)


def _in_process(
  run: Callable[[str, Sequence[StoredFile]], None],
  place: str,
  stored: Sequence[StoredFile],
) -> tuple[float, float, float]:
  """Returns seconds, those of CPUs, and MB of memory, that `run` takes."""
  start, cpu = time.perf_counter(), time.process_time()
  run(place, stored)
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  # getrusage would count what the process that started this one has.
  status = pathlib.Path("/proc/self/status").read_text()
  memory = int(status.split("VmHWM:")[1].split()[0]) / 1e3
  return seconds, cpu, memory


def main(argv: Sequence[str]) -> None:
  """Prints a line for each thing that is done."""
  del argv
  place = f"{_PLACE.value}/{uuid.uuid4().hex}"
  stored = _lay(place, _MEGABYTES.value)
  megabytes = sum(file.num_bytes for file in stored) / 1e6
  context = multiprocessing.get_context("spawn")
  try:
    for what in ("copied", "opened again"):
      with context.Pool(1) as pool:
        found = pool.apply(_in_process, (_fetch, place, stored))
      seconds, cpu, memory = found
      print(
        f"{what}: {megabytes:,.0f} MB in {seconds:.1f} s, "
        f"{megabytes / seconds:,.0f} MB/s; {cpu:.1f} s of CPUs, "
        f"{megabytes / cpu:,.0f} MB/s; {memory:,.0f} MB of memory"
      )
  finally:
    epath.Path(place).rmtree()
    HostCopy(CORPORA, place).drop()


if __name__ == "__main__":
  flags.mark_flag_as_required("place")
  app.run(main)
