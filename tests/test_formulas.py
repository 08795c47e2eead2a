"""The shared headers of formulas: they compile alone, under a plain C++ compiler, and say the right thing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
HEADERS = ["macros.h", "dtypes.h", "math.h", "histogram.h"]
COMPILER = os.environ.get("CXX", "c++").split()[-1]

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C++ compiler")

PROGRAM = """
#include "kernels/histogram.h"
#include "kernels/math.h"

#include <cmath>
#include <cstdio>

using namespace pyparam;

static int failures = 0;
static void check(bool good, const char* what) {
  if (!good) std::printf("wrong: %s\\n", what);
  failures += !good;
}

static Statistics of(double a, double b) {
  Statistics s;
  s.finite = 2;
  s.min = a;
  s.max = b;
  set_moments(s, a, b - a, (b - a) * (b - a));
  s.l1 = std::fabs(a) + std::fabs(b);
  return s;
}

int main() {
  check(Half::value(0x3c00) == 1.0f && Half::value(0x0001) == 0x1p-24f, "half");
  check(std::isinf(Half::value(0xfc00)) && std::isnan(Half::value(0x7c01)), "half specials");
  check(Float8e4m3fn::value(0x7e) == 448.0f && std::isnan(Float8e4m3fn::value(0xff)), "e4m3fn");
  check(Float8e5m2fnuz::value(0x7f) == 57344.0f && std::isnan(Float8e5m2fnuz::value(0x80)), "e5m2fnuz");
  check(Float8e8m0fnu::value(0) == 0x1p-127f && Float8e8m0fnu::value(128) == 2.0f, "e8m0fnu");

  const Statistics both = combine(of(1, 3), of(5, 7));
  check(mean_of(both) == 4 && both.m2 == 20 && l2_of(both) == std::sqrt(84.0), "combine");
  check(mean_of(combine(of(1, 3), Statistics{})) == 2, "combine with nothing");
  check(std::isnan(std_of(Statistics{})) && std::isnan(min_of(Statistics{})), "nothing");
  Statistics far = of(1, 3);
  far.exponent = 600;
  check(l2_of(combine(far, of(1, 3))) == l2_of(far) && mean_of(far) == std::ldexp(2.0, 600), "exponents");
  check(scaling_exponent(1e200) != 0 && scaling_exponent(1) == 0 && scaling_exponent(0) == 0, "scaling");

  for (int bin = 0; bin < kBins; ++bin) {
    const uint32_t inner = bin_inner_bits(bin);
    if (inner >= 0x7f800000u) continue;
    const uint32_t sign = bin < kZeroBin ? 0x80000000u : 0;
    // The inner edge is in the bin, but for minus zero, which is a zero.
    if (bin != kZeroBin - 1) check(bin_of(sign | inner) == bin, "the bin of an inner edge");
    check(bin_of(sign | (inner + 0xffffu)) == bin, "the bin of a last value");
  }
  check(bin_of(0x80000000u) == kZeroBin, "minus zero");
  return failures;
}
"""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@needs_compiler
@pytest.mark.parametrize("header", HEADERS)
def test_each_header_compiles_alone(header: str, tmp_path: Path) -> None:
    text = (CSRC / "kernels" / header).read_text()
    includes = [line for line in text.splitlines() if line.startswith("#include")]
    assert not any(word in line for line in includes for word in ("ATen", "torch", "c10", "Python.h"))
    alone = tmp_path / "alone.cpp"
    alone.write_text(f'#include "kernels/{header}"\n')
    done = run(COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", CSRC, alone)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_the_formulas_in_a_program_without_torch(tmp_path: Path) -> None:
    source = tmp_path / "formulas.cpp"
    source.write_text(PROGRAM)
    done = run(
        COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-I", CSRC, source, "-o", tmp_path / "formulas"
    )
    assert done.returncode == 0, done.stderr
    done = run(tmp_path / "formulas")
    assert (done.returncode, done.stdout) == (0, "")
