// What a tensor is filled with: a distribution, prepared, and the key its elements are drawn under.
// Plain data, the same for the CPU and CUDA. Includes no torch header.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/normal_cdf.h"
#include "kernels/random.h"
#include "kernels/truncated.h"

namespace pyparam::random {

// The numbers are those of the dispatcher op's `kinds`. Each reads some of four parameters.
enum class Kind : int64_t {
  kKeep = -1,      // leave the tensor as it is
  kConstant = 0,   // value
  kUniform = 1,    // from, to
  kNormal = 2,     // mean, deviation
  kTruncated = 3,  // mean, deviation, lowest, highest
};
constexpr int64_t kKinds = 4;
constexpr int64_t kParameters = 4;

enum class Map : uint8_t { kKeep, kConstant, kUniform, kNormal, kTruncated, kFarTail };

// How a tensor stores what is drawn, and so what a draw may come to: none leaves its bounds by
// rounding, and none overflows.
enum class Stored : uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

struct StoredFormat {
  int digits;          // of the mantissa, the hidden one included
  int least_exponent;  // of normal numbers
  double largest;
  double reach;  // a normal drawn for it lies within this many deviations
};

inline StoredFormat format_of(Stored stored) {
  switch (stored) {
    case Stored::kFloat32:
      return {24, -126, 0x1.fffffep127, 6.77};
    case Stored::kFloat16:
      return {11, -14, 65504.0, 6.77};
    case Stored::kBFloat16:
      return {8, -126, 0x1.fep127, 6.77};
    case Stored::kFloat64:
      break;
  }
  return {53, -1022, std::numeric_limits<double>::max(), 8.66};
}

// The largest number of the format that is at most x; -infinity if there is none.
inline double held_at_most(const StoredFormat& format, double x) {
  if (x >= format.largest) return format.largest;
  if (x < -format.largest) return -std::numeric_limits<double>::infinity();
  if (format.digits == 53 || x == 0.0) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const double step =
      std::ldexp(1.0, std::max(exponent - 1, format.least_exponent) - format.digits + 1);
  return std::floor(x / step) * step;
}
// The smallest that is at least x; infinity if there is none.
inline double held_at_least(const StoredFormat& format, double x) {
  return -held_at_most(format, -x);
}

// What may come out.
struct Range {
  double lowest, highest;

  bool empty() const { return !(lowest <= highest); }
  bool within(double largest) const { return lowest >= -largest && highest <= largest; }
};

// The numbers of a format in [from, to); empty where it has none there.
inline Range uniform_range(const StoredFormat& format, double from, double to) {
  return {held_at_least(format, from),
          held_at_most(format, std::nextafter(to, -std::numeric_limits<double>::infinity()))};
}
// The numbers of a format in [lowest, highest]; empty where it has none there.
inline Range closed_range(const StoredFormat& format, double lowest, double highest) {
  return {held_at_least(format, lowest), held_at_most(format, highest)};
}
// Where a normal's draws lie, and a truncated one's.
inline Range normal_reach(const StoredFormat& format, double mean, double deviation) {
  return {mean - format.reach * deviation, mean + format.reach * deviation};
}
inline Range truncated_reach(const StoredFormat& format, double mean, double deviation,
                             double lowest, double highest) {
  const Range free = normal_reach(format, clamped(mean, lowest, highest), deviation);
  return {std::max(lowest, free.lowest), std::min(highest, free.highest)};
}

template <typename Real>
struct Affine {
  Real shift, scale;     // shift + scale * z
  Real lowest, highest;  // of a uniform: what may come out
  Real tilt;             // of a uniform: u - tilt u (1 - u) takes the place of u
};

// Which numbers: the seed, and the stream of one tensor.
struct Key {
  uint64_t seed = 0, stream = 0;
};

struct Draw {
  Map map = Map::kKeep;
  double centre = 0.0;  // near the values' mean: moments are summed about it
  Affine<float> affine32 = {};
  Affine<double> affine64 = {};
  Truncation<float> truncation32 = {};
  Truncation<double> truncation64 = {};
  FarTail tail = {};
};

template <typename Real>
Affine<Real> uniform_affine(double from, double scale, const Range& range, double tilt) {
  return {static_cast<Real>(from), static_cast<Real>(scale), static_cast<Real>(range.lowest),
          static_cast<Real>(range.highest), static_cast<Real>(tilt)};
}

inline void make_uniform(Draw& draw, double from, double scale, const Range& range, double tilt) {
  draw.map = Map::kUniform;
  draw.affine32 = uniform_affine<float>(from, scale, range, tilt);
  draw.affine64 = uniform_affine<double>(from, scale, range, tilt);
}

inline void make_constant(Draw& draw, double value) {
  draw.map = Map::kConstant;
  draw.centre = value;
  draw.affine32.shift = static_cast<float>(value);
  draw.affine64.shift = value;
}

template <typename Real>
Truncation<Real> as_type(const Truncation<double>& t) {
  return {static_cast<Real>(t.mean),    static_cast<Real>(t.deviation), static_cast<Real>(t.lowest),
          static_cast<Real>(t.highest), static_cast<Real>(t.centre),    static_cast<Real>(t.below),
          static_cast<Real>(t.above),   static_cast<Real>(t.inside)};
}

// A normal cut to [lowest, highest], of which the format holds `range`.
inline void make_truncated(Draw& draw, double mean, double deviation, double lowest, double highest,
                           const Range& range) {
  // Farther out than this the bound itself is the only value there is.
  constexpr double kFarthest = 1e150;
  // In a narrower interval, differences of quantiles near its ends are all rounding. The density
  // falls by exp(-slope) from end to end; what is left out of it is below 2^-26.
  constexpr double kNarrow = 0x1p-12;
  const double alpha = std::min((lowest - mean) / deviation, kFarthest);
  const double beta = std::max((highest - mean) / deviation, -kFarthest);
  const double width = (highest - lowest) / deviation;
  if (alpha >= kFarTail) {
    draw.map = Map::kFarTail;
    draw.tail = {lowest,
                 deviation,
                 range.lowest,
                 range.highest,
                 alpha,
                 mills_ratio(alpha),
                 far_tail_share(alpha, beta)};
  } else if (beta <= -kFarTail) {
    draw.map = Map::kFarTail;
    draw.tail = {highest,
                 -deviation,
                 range.lowest,
                 range.highest,
                 -beta,
                 mills_ratio(-beta),
                 far_tail_share(-beta, -alpha)};
  } else if (width < kNarrow) {
    const double slope = width * (0.5 * alpha + 0.5 * beta);
    make_uniform(draw, lowest, highest - lowest, range, 0.5 * slope);
  } else {
    draw.map = Map::kTruncated;
    draw.truncation64 = {mean,
                         deviation,
                         range.lowest,
                         range.highest,
                         centred_probability(alpha),
                         upper_probability(-alpha),
                         upper_probability(beta),
                         interval_probability(alpha, beta)};
    draw.truncation32 = as_type<float>(draw.truncation64);
  }
}

// The parameters were checked (fill.cpp): finite but for infinite bounds of a truncation, from <=
// to, deviation >= 0, and draws that the format can hold.
inline Draw prepared(Kind kind, const double* parameter, Stored stored) {
  const StoredFormat format = format_of(stored);
  Draw draw;
  const double first = parameter[0], second = parameter[1], lowest = parameter[2],
               highest = parameter[3];
  draw.affine32.shift = static_cast<float>(first);
  draw.affine64.shift = draw.centre = first;
  switch (kind) {
    case Kind::kKeep:
      break;
    case Kind::kConstant:
      make_constant(draw, first);
      break;
    case Kind::kUniform:
      if (first == second) {
        make_constant(draw, first);
      } else {
        draw.centre = 0.5 * first + 0.5 * second;
        make_uniform(draw, first, second - first, uniform_range(format, first, second), 0.0);
      }
      break;
    case Kind::kNormal:
      draw.map = Map::kNormal;
      draw.affine32.scale = static_cast<float>(second);
      draw.affine64.scale = second;
      break;
    case Kind::kTruncated: {
      const Range range = closed_range(format, lowest, highest);
      draw.centre = clamped(first, lowest, highest);
      if (lowest == highest) {
        make_constant(draw, draw.centre);
      } else if (second == 0.0) {
        make_constant(draw, clamped(first, range.lowest, range.highest));
      } else {
        make_truncated(draw, first, second, lowest, highest, range);
      }
      break;
    }
  }
  return draw;
}

// Mean and standard deviation (without Bessel's correction) of `numel` values from the sums of
// x - centre and of its square. NaN without values.
PYPARAM_FORMULA void moments_of(double first, double second, int64_t numel, double centre,
                                double* out) {
  if (numel == 0) {
    out[0] = out[1] = bits_as<double>(uint64_t{0x7ff8000000000000});
    return;
  }
  const auto n = static_cast<double>(numel);
  const double mean = first / n;
  const double variance = second / n - mean * mean;
  out[0] = centre + mean;
  out[1] = square_root(variance > 0.0 ? variance : 0.0);
}

// Elements a Philox block of four words gives: four of 32 bits, two of 64.
template <typename Real>
constexpr int64_t kPerBlock = 16 / static_cast<int64_t>(sizeof(Real));

// A value far in a tail.
PYPARAM_FORMULA float far_tail_value(const Draw& draw, uint32_t w) {
  return static_cast<float>(far_tail_normal(draw.tail, unit_open_closed(0u, w)));
}
PYPARAM_FORMULA double far_tail_value(const Draw& draw, uint32_t low, uint32_t high) {
  return far_tail_normal(draw.tail, unit_open_closed(low, high));
}

template <typename Real>
PYPARAM_FORMULA Real uniform_value(const Affine<Real>& a, Real u) {
  const Real tilted = u - a.tilt * (u * (Real(1) - u));
  return clamped(tilted * a.scale + a.shift, a.lowest, a.highest);
}

// The values of one block, for a map chosen at compile time. A normal makes them in pairs.
template <Map map>
PYPARAM_FORMULA void values_of_pair(const Draw& draw, uint32_t w0, uint32_t w1, float& even,
                                    float& odd) {
  if constexpr (map == Map::kUniform) {
    const Affine<float>& a = draw.affine32;
    even = uniform_value(a, unit_closed_open(w0));
    odd = uniform_value(a, unit_closed_open(w1));
  } else if constexpr (map == Map::kNormal) {
    const Affine<float>& a = draw.affine32;
    const Direction<float> z = normal_pair(w0, w1);
    even = z.cosine * a.scale + a.shift;
    odd = z.sine * a.scale + a.shift;
  } else if constexpr (map == Map::kTruncated) {
    const Truncation<float>& t = draw.truncation32;
    even = truncated_normal(t, unit_open_closed(w0), unit_open_closed(~w0));
    odd = truncated_normal(t, unit_open_closed(w1), unit_open_closed(~w1));
  } else {
    even = far_tail_value(draw, w0);
    odd = far_tail_value(draw, w1);
  }
}

template <Map map>
PYPARAM_FORMULA void values_of_pair(const Draw& draw, uint32_t w0, uint32_t w1, uint32_t w2,
                                    uint32_t w3, double& even, double& odd) {
  if constexpr (map == Map::kUniform) {
    const Affine<double>& a = draw.affine64;
    even = uniform_value(a, unit_closed_open(w0, w1));
    odd = uniform_value(a, unit_closed_open(w2, w3));
  } else if constexpr (map == Map::kNormal) {
    const Affine<double>& a = draw.affine64;
    const Direction<double> z = normal_pair(w0, w1, w2, w3);
    even = z.cosine * a.scale + a.shift;
    odd = z.sine * a.scale + a.shift;
  } else if constexpr (map == Map::kTruncated) {
    const Truncation<double>& t = draw.truncation64;
    even = truncated_normal(t, unit_open_closed(w0, w1), unit_open_closed(~w0, ~w1));
    odd = truncated_normal(t, unit_open_closed(w2, w3), unit_open_closed(~w2, ~w3));
  } else {
    even = far_tail_value(draw, w0, w1);
    odd = far_tail_value(draw, w2, w3);
  }
}

}  // namespace pyparam::random
