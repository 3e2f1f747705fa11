# SPDX-License-Identifier: Apache-2.0
from benchmarks import corpus


def test_memory_is_extended_along_the_line_of_two_sizes():
  small = {"passages": 100_000, "peak_mb": 200}
  large = {"passages": 400_000, "peak_mb": 260, "passages_a_cpu_second": 1000}
  found = corpus.extrapolate(small, large)
  assert found["bytes_a_passage"] == 200
  assert found["estimated_peak_mb"] == round(260 + 200e-6 * (13_353_718 - 4e5))
  assert found["estimated_cpu_hours"] == 3.7
