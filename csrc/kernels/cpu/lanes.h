// The inner loops over one block of values, for the instructions this machine has.
//
// Sums run in sixteen float64 lanes: value i goes to lane i % 16, and the lanes add up as a binary
// tree. So a result is the same bits whether a vector holds 2, 4 or 8 of the lanes.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/math.h"

namespace pyparam::cpu {

// Values of one block: small enough that a second pass over it finds it in the first-level cache.
constexpr int64_t kBlock = 4096;

// How the values of a tensor are stored, complex numbers as pairs of values.
enum class Format : uint8_t {
  kFloat,
  kDouble,  // as they are
  kHalf,
  kBFloat16,
  kFloat8e5m2,
  kFloat8e4m3fn,  // exactly representable as float32 ...
  kFloat8e5m2fnuz,
  kFloat8e4m3fnuz,
  kFloat8e8m0fnu,
  kBool,
  kUInt8,
  kInt8,
  kInt16,
  kUInt16,
  kInt32,
  kUInt32,
  kInt64,
  kUInt64,  // ... as float64, beyond 2^53 the nearest
};

// Which of the two a format is widened to.
constexpr bool is_double(Format format) {
  return format == Format::kDouble || format >= Format::kInt32;
}
constexpr int value_size(Format format) {
  switch (format) {
    case Format::kDouble:
    case Format::kInt64:
    case Format::kUInt64:
      return 8;
    case Format::kFloat:
    case Format::kInt32:
    case Format::kUInt32:
      return 4;
    case Format::kHalf:
    case Format::kBFloat16:
    case Format::kInt16:
    case Format::kUInt16:
      return 2;
    default:
      return 1;
  }
}
float smallest_normal(
    Format format);  // of formats that widen to float32; smallest positive for integers

// The values of one tensor. A complex number is two values. They come in memory order where the
// tensor fills its memory densely (transposed and channels-last tensors do), in logical order where
// it does not.
struct Elements {
  // What is measured as a few values is: one run, of which all sums stay in few bits (few.h).
  static constexpr int64_t kFew = 256;

  const char* data = nullptr;
  int64_t values = 0;
  Format format = Format::kFloat;
  bool is_complex = false;
  bool few = false;  // dense real values of float32 or 16 bits, 1 to kFew of them
  uint8_t value_bytes = sizeof(float);
  int32_t strided = -1;  // index of its view, -1 where its memory is dense

  int64_t numel() const { return is_complex ? values / 2 : values; }
  int64_t bytes() const { return values * value_bytes; }
};

// The magnitude bits of a block's float32 values other than zeros, infinities and NaNs.
struct MagnitudeRange {
  uint32_t smallest = 0x7fffffffu;  // more than the largest where there are none
  uint32_t largest = 0;
};

// Limits that one pass can count by.
constexpr int kCountedAtOnce = 8;

using Limits = std::array<uint32_t, kCountedAtOnce>;

// A run of a block and its exact sums, if its magnitudes span few enough powers of two.
constexpr int64_t kExactRun = 2048;
constexpr int kExactSpan = 18;  // of a window; see exact.cpp
struct ExactRun {
  enum Kind : uint8_t {
    kUnknown,  // the sums mean nothing
    kWindow,   // they are of one size, and of one number each, or two of the squares
    kParts,    // of so many numbers each, which add up to them
  };
  static constexpr int kWindows = 3;
  Kind kind;
  int exponent;  // with its bias: the values are below the next power of two
  double values[kWindows], magnitudes[kWindows], squares[2 * kWindows];
  uint32_t below = 0;  // of parts: of the bits of magnitudes below which none is in the sums
};
constexpr int64_t kRunsOfBlock = kBlock / kExactRun;

// What sums are made for: the exponent with its bias of the largest magnitudes, 0 where nothing is
// known of them yet, and how far magnitudes span below it. It follows the values that are measured
// with it; where it is wrong, a run is read twice. One run alone that spans more or less than is
// guessed changes nothing: in a normal distribution it is one in a hundred. One for values that are
// widened to float32 and another for those that are to float64.
struct Guess {
  const void* end = nullptr;  // of the memory that is read block by block; null where it is not
  int exponent = 0;
  uint8_t kind = 0;
  bool unlike = false;   // whether the last run needed another kind
  uint8_t bandless = 0;  // blocks of bfloat16 that are not tried as bands: see lanes_bands_target.h
};

struct FewTensors;
struct FewTotals;

// Blocks have 1 to kBlock values. `normal` is the smallest normal value of the type they come from.
struct LaneKernels {
  // All but the moments, which come of the exact sums of each run. `range`, unless null, gets that
  // of the block's magnitudes if it is there for nothing: if no value is zero, infinite or NaN.
  // Else it is left alone.
  Statistics (*measure_float)(const float* x, int64_t n, float normal, MagnitudeRange* range,
                              Guess* guess, ExactRun* runs);
  // Of 16-bit values as they are stored; they are written out, `widened`, where the sums of some
  // run are not known. The same bits as widening first.
  Statistics (*measure_half)(const void* x, int64_t n, float* widened, Guess* guess,
                             ExactRun* runs);
  Statistics (*measure_bfloat16)(const void* x, int64_t n, float* widened, Guess* guess,
                                 ExactRun* runs);
  Statistics (*measure_double)(const double* x, int64_t n, Guess* guess, ExactRun* runs);
  // Of the tensors [begin, end) of a list those of few values, and the squares of those of them
  // that are float32: see few.h.
  int64_t (*measure_few)(const FewTensors& tensors, int64_t begin, int64_t end, Guess* guess,
                         FewTotals& totals, int32_t* left);
  void (*squares_few)(const Elements* elements, int64_t begin, int64_t end, double* sums);

  void (*widen)(Format format, const void* from, int64_t n, void* to);
  void (*narrow)(const double* from, int64_t n, float* to);

  // How many values have magnitude bits below each of the limits, and the range of the magnitudes.
  void (*count_below)(const float* x, int64_t n, const Limits& limits, Limits& counts);
  MagnitudeRange (*magnitude_range)(const float* x, int64_t n);
  // Counts below the limits too, and each value in one of two tables of kBins by its upper half.
  // All are finite.
  void (*count_bins)(const float* x, int64_t n, uint32_t* tables, const Limits& limits,
                     Limits& counts);

  // Parts of norms: sum of squares, sum and least and largest of magnitudes; NaN where there is
  // one.
  double (*squares_float)(const float* x, int64_t n);
  double (*squares_double)(const double* x, int64_t n, double scale);
  double (*sum_abs_float)(const float* x, int64_t n);
  double (*sum_abs_double)(const double* x, int64_t n);
  void (*extremes_float)(const float* x, int64_t n, double* least, double* largest);
  void (*extremes_double)(const double* x, int64_t n, double* least, double* largest);
};

const LaneKernels& lane_kernels();

}  // namespace pyparam::cpu
