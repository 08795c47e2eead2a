#include "kernels/cpu/pair.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/cpu/formats.h"
#include "kernels/operands.h"

namespace pyparam::cpu {
namespace {

// What one thread needs beside the tensors themselves: elements put in order, and values widened.
struct Workspace {
  alignas(64) char ordered_a[kBlock * 16];
  alignas(64) char ordered_b[kBlock * 16];
  alignas(64) double a[kBlock];
  alignas(64) double b[kBlock];
  alignas(64) double distance[kBlock];
  alignas(64) float narrow_a[kBlock];
  alignas(64) float narrow_b[kBlock];
};

Workspace& workspace() {
  static thread_local const std::unique_ptr<Workspace> memory = std::make_unique<Workspace>();
  return *memory;
}

// Values of both sides, as float32 or as float64; the other pointers are null.
struct Values {
  const float* float_a = nullptr;
  const float* float_b = nullptr;
  const double* a = nullptr;
  const double* b = nullptr;
  bool unbounded = false;  // squares may leave float64's range
};

void add_ordinary(Difference& out, const BlockDifference& block, int64_t n) {
  out.finite = n;
  out.max_abs = block.max_abs;
  out.sum_abs.value = block.sum_abs;
  out.squares.value = block.squares;
  out.squares_a.value = block.squares_a;
  out.squares_b.value = block.squares_b;
  out.product.value = block.product;
}

double magnitude(double x) { return bit_cast<double>(magnitude_bits(x)); }

// A block with infinities or NaNs in it, or with values whose squares leave float64's range.
// agree(i) is whether pair i is the same, bit for bit.
template <typename Agree>
void compare_carefully(const Values& values, int64_t n, const Agree& agree, Difference& out) {
  Workspace& memory = workspace();
  const DifferenceKernels& kernels = difference_kernels();
  if (values.float_a != nullptr) {
    kernels.to_doubles(values.float_a, n, memory.a);
    kernels.to_doubles(values.float_b, n, memory.b);
  } else {
    if (values.a != memory.a) std::copy_n(values.a, n, memory.a);
    if (values.b != memory.b) std::copy_n(values.b, n, memory.b);
  }
  double largest_a = 0;
  double largest_b = 0;
  out.finite = n;
  for (int64_t i = 0; i < n; ++i) {
    double& a = memory.a[i];
    double& b = memory.b[i];
    if (!is_finite(a) || !is_finite(b)) {
      out.finite -= 1;
      out.nonfinite += !agree(i);
      a = b = 0;
    }
    memory.distance[i] = magnitude(a - b);
    largest_a = std::max(largest_a, magnitude(a));
    largest_b = std::max(largest_b, magnitude(b));
    out.max_abs = std::max(out.max_abs, memory.distance[i]);
  }
  const int64_t exponent_a = scaling_exponent(largest_a);
  const int64_t exponent_b = scaling_exponent(largest_b);
  const bool too_far = !is_finite(out.max_abs);  // apart by more than the largest number
  const int64_t exponent = too_far ? 1024 : scaling_exponent(out.max_abs);
  for (int64_t i = 0; i < n; ++i) {
    double& a = memory.a[i];
    double& b = memory.b[i];
    memory.distance[i] = too_far ? magnitude(shifted(a, -exponent) - shifted(b, -exponent))
                                 : shifted(memory.distance[i], -exponent);
    a = shifted(a, -exponent_a);
    b = shifted(b, -exponent_b);
  }
  const BlockDifference block = kernels.given(memory.a, memory.b, memory.distance, n);
  out.sum_abs = {block.sum_abs, exponent};
  out.squares = {block.squares, 2 * exponent};
  out.squares_a = {block.squares_a, 2 * exponent_a};
  out.squares_b = {block.squares_b, 2 * exponent_b};
  out.product = {block.product, exponent_a + exponent_b};
}

// `same`: the two sides are the same bits throughout, so that only their norm is asked for.
template <typename Agree>
void compare_values(const Values& values, int64_t n, bool same, const Agree& agree,
                    Difference& out) {
  const DifferenceKernels& kernels = difference_kernels();
  const bool floats = values.float_a != nullptr;
  BlockDifference block = {};
  if (same) {
    const double squares =
        floats ? kernels.squares_float(values.float_a, n) : kernels.squares_double(values.a, n);
    block.squares_a = block.squares_b = block.product = squares;
  } else {
    block = floats ? kernels.floats(values.float_a, values.float_b, n)
                   : kernels.doubles(values.a, values.b, n);
  }
  const bool ordinary = values.unbounded
                            ? is_ordinary_square(block.squares_a) &&
                                  is_ordinary_square(block.squares_b) && is_ordinary(block.max_abs)
                            : is_finite(block.squares_a) && is_finite(block.squares_b);
  if (__builtin_expect(ordinary, true)) {
    add_ordinary(out, block, n);
  } else {
    compare_carefully(values, n, agree, out);
  }
}

template <typename Integer>
BlockDifference compare_integers(const void* stored_a, const void* stored_b, int64_t n) {
  Workspace& memory = workspace();
  const auto* a = static_cast<const Integer*>(stored_a);
  const auto* b = static_cast<const Integer*>(stored_b);
  for (int64_t i = 0; i < n; ++i) {
    memory.a[i] = static_cast<double>(a[i]);
    memory.b[i] = static_cast<double>(b[i]);
    memory.distance[i] = distance(a[i], b[i]);
  }
  return difference_kernels().given(memory.a, memory.b, memory.distance, n);
}

int64_t first_differing(const char* a, const char* b, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i * width, b + i * width, static_cast<size_t>(width)) != 0) return i;
  }
  return Difference::kNone;
}

// n elements of one type.
void compare_alike(const Side& side, const char* a, const char* b, int64_t n, Difference& out) {
  Workspace& memory = workspace();
  const int64_t width = side.view.itemsize();
  out.differing = difference_kernels().count_differing(a, b, n, width);
  const bool same = out.differing == 0;
  if (!same) out.first = first_differing(a, b, n, width);
  const int64_t count = n * side.parts;
  Values values;
  switch (side.format) {
    case Format::kInt64:
      return add_ordinary(out, compare_integers<int64_t>(a, b, n), n);
    case Format::kUInt64:
      return add_ordinary(out, compare_integers<uint64_t>(a, b, n), n);
    case Format::kFloat:
      values.float_a = reinterpret_cast<const float*>(a);
      values.float_b = reinterpret_cast<const float*>(b);
      break;
    case Format::kDouble:
      values.a = reinterpret_cast<const double*>(a);
      values.b = reinterpret_cast<const double*>(b);
      values.unbounded = true;
      break;
    default: {
      const bool wide = is_double(side.format);
      const LaneKernels& lanes = lane_kernels();
      lanes.widen(side.format, a, count, wide ? static_cast<void*>(memory.a) : memory.narrow_a);
      if (!same)
        lanes.widen(side.format, b, count, wide ? static_cast<void*>(memory.b) : memory.narrow_b);
      if (wide) {
        values.a = memory.a;
        values.b = same ? memory.a : memory.b;
      } else {
        values.float_a = memory.narrow_a;
        values.float_b = same ? memory.narrow_a : memory.narrow_b;
      }
    }
  }
  const int64_t part = width / side.parts;
  const auto agree = [=](int64_t i) {
    return std::memcmp(a + i * part, b + i * part, static_cast<size_t>(part)) == 0;
  };
  compare_values(values, count, same, agree, out);
}

// The n elements as float64 or, where `wide` is false, as float32; each followed by a zero where
// `spread` is true.
void widen_side(const Side& side, const char* stored, int64_t n, bool wide, bool spread,
                double* out, float* narrow) {
  const LaneKernels& lanes = lane_kernels();
  const int64_t count = n * side.parts;
  if (is_double(side.format)) {
    lanes.widen(side.format, stored, count, out);
  } else {
    lanes.widen(side.format, stored, count, narrow);
    if (wide) difference_kernels().to_doubles(narrow, count, out);
  }
  if (!spread) return;
  for (int64_t i = n; i-- > 0;) {
    if (wide) {
      out[2 * i] = out[i];
      out[2 * i + 1] = 0;
    } else {
      narrow[2 * i] = narrow[i];
      narrow[2 * i + 1] = 0;
    }
  }
}

template <typename T>
bool agrees(T a, T b) {
  return a == b || (a != a && b != b);
}

// n elements of two types, by value: zeros of both signs are one value, and so are all NaNs.
void compare_mixed(const Side& side_a, const Side& side_b, const char* a, const char* b, int64_t n,
                   Difference& out) {
  Workspace& memory = workspace();
  const bool wide = is_double(side_a.format) || is_double(side_b.format);
  const int64_t parts = std::max(side_a.parts, side_b.parts);
  widen_side(side_a, a, n, wide, side_a.parts < parts, memory.a, memory.narrow_a);
  widen_side(side_b, b, n, wide, side_b.parts < parts, memory.b, memory.narrow_b);
  Values values;
  values.unbounded = side_a.format == Format::kDouble || side_b.format == Format::kDouble;
  if (wide) {
    values.a = memory.a;
    values.b = memory.b;
  } else {
    values.float_a = memory.narrow_a;
    values.float_b = memory.narrow_b;
  }
  const auto agree = [&](int64_t i) {
    return wide ? agrees(memory.a[i], memory.b[i]) : agrees(memory.narrow_a[i], memory.narrow_b[i]);
  };
  const DifferenceKernels& kernels = difference_kernels();
  out.differing = wide ? kernels.count_unequal_doubles(memory.a, memory.b, n * parts)
                       : kernels.count_unequal_floats(memory.narrow_a, memory.narrow_b, n * parts);
  if (out.differing > 0) {
    const auto element_agrees = [&](int64_t i) {
      return parts == 1 ? agree(i) : agree(2 * i) && agree(2 * i + 1);
    };
    out.differing = 0;
    for (int64_t i = n; i-- > 0;) {
      if (element_agrees(i)) continue;
      out.differing += 1;
      out.first = i;
    }
  }
  compare_values(values, n * parts, false, agree, out);
}

}  // namespace

void check_comparable_values(const char* list, int64_t index, const at::Tensor& tensor) {
  check_strided("compare", list, index, tensor);
  check_memory("compare", list, index, tensor);
  TORCH_CHECK_TYPE(stored_format(tensor.scalar_type()).has_value(), "compare: ", list, "[", index,
                   "] has dtype ", tensor.scalar_type(),
                   ", whose elements are not single numbers; expected a floating, complex, integer "
                   "or bool dtype");
}

void check_comparable(const char* list, int64_t index, const at::Tensor& tensor) {
  check_readable("compare", list, index, tensor);
  check_comparable_values(list, index, tensor);
}

Side::Side(const at::Tensor& tensor)
    : view(tensor),
      format(*stored_format(tensor.scalar_type())),
      parts(tensor.is_complex() ? 2 : 1) {}

Difference compare_run(const at::Tensor& a, const at::Tensor& b, int64_t begin, int64_t length) {
  Workspace& memory = workspace();
  const Side side_a(a);
  const Side side_b(b);
  const bool alike = a.scalar_type() == b.scalar_type();
  const int64_t step = kBlock / std::max(side_a.parts, side_b.parts);
  Difference out;
  for (int64_t at = begin; at < begin + length; at += step) {
    const int64_t n = std::min(step, begin + length - at);
    const char* block_a = side_a.view.read(at, n, memory.ordered_a);
    const char* block_b = side_b.view.read(at, n, memory.ordered_b);
    Difference part;
    if (alike) {
      compare_alike(side_a, block_a, block_b, n, part);
    } else {
      compare_mixed(side_a, side_b, block_a, block_b, n, part);
    }
    if (part.first != Difference::kNone) part.first += at;
    out = combine(out, part);
  }
  return out;
}

}  // namespace pyparam::cpu
