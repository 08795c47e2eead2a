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

template <typename Real>
struct Affine {
  Real shift, scale;     // shift + scale * z
  Real lowest, highest;  // of a uniform: from, and the largest number below to
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
Affine<Real> uniform_affine(double from, double to) {
  const auto low = static_cast<Real>(from), high = static_cast<Real>(to);
  const Real below = high > low ? std::nextafter(high, low) : low;
  return {low, static_cast<Real>(to - from), low, below};
}

template <typename Real>
Truncation<Real> as_type(const Truncation<double>& t) {
  return {static_cast<Real>(t.mean),    static_cast<Real>(t.deviation), static_cast<Real>(t.lowest),
          static_cast<Real>(t.highest), static_cast<Real>(t.centre),    static_cast<Real>(t.below),
          static_cast<Real>(t.above),   static_cast<Real>(t.inside)};
}

// The parameters were checked: finite but for infinite bounds of a truncation, from <= to,
// deviation >= 0.
inline Draw prepared(Kind kind, const double* parameter) {
  Draw draw;
  const double first = parameter[0], second = parameter[1], lowest = parameter[2],
               highest = parameter[3];
  draw.affine32.shift = static_cast<float>(first);
  draw.affine64.shift = draw.centre = first;
  switch (kind) {
    case Kind::kKeep:
      break;
    case Kind::kConstant:
      draw.map = Map::kConstant;
      break;
    case Kind::kUniform:
      draw.map = Map::kUniform;
      draw.centre = 0.5 * first + 0.5 * second;
      draw.affine32 = uniform_affine<float>(first, second);
      draw.affine64 = uniform_affine<double>(first, second);
      break;
    case Kind::kNormal:
      draw.map = Map::kNormal;
      draw.affine32.scale = static_cast<float>(second);
      draw.affine64.scale = second;
      break;
    case Kind::kTruncated: {
      draw.centre = clamped(first, lowest, highest);
      // Farther out than this the bound itself is the only value there is.
      constexpr double kFarthest = 1e150;
      const double alpha = std::min((lowest - first) / second, kFarthest);
      const double beta = std::max((highest - first) / second, -kFarthest);
      if (second == 0.0 || lowest == highest) {
        draw.map = Map::kConstant;
        draw.affine32.shift = static_cast<float>(draw.centre);
        draw.affine64.shift = draw.centre;
      } else if (alpha >= kFarTail) {
        draw.map = Map::kFarTail;
        draw.tail = {lowest,
                     second,
                     lowest,
                     highest,
                     alpha,
                     mills_ratio(alpha),
                     far_tail_share(alpha, beta)};
      } else if (beta <= -kFarTail) {
        draw.map = Map::kFarTail;
        draw.tail = {highest,
                     -second,
                     lowest,
                     highest,
                     -beta,
                     mills_ratio(-beta),
                     far_tail_share(-beta, -alpha)};
      } else {
        draw.map = Map::kTruncated;
        draw.truncation64 = {first,
                             second,
                             lowest,
                             highest,
                             centred_probability(alpha),
                             upper_probability(-alpha),
                             upper_probability(beta),
                             interval_probability(alpha, beta)};
        draw.truncation32 = as_type<float>(draw.truncation64);
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

// The values of one block, for a map chosen at compile time. A normal makes them in pairs.
template <Map map>
PYPARAM_FORMULA void values_of_pair(const Draw& draw, uint32_t w0, uint32_t w1, float& even,
                                    float& odd) {
  if constexpr (map == Map::kUniform) {
    const Affine<float>& a = draw.affine32;
    even = clamped(unit_closed_open(w0) * a.scale + a.shift, a.lowest, a.highest);
    odd = clamped(unit_closed_open(w1) * a.scale + a.shift, a.lowest, a.highest);
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
    even = clamped(unit_closed_open(w0, w1) * a.scale + a.shift, a.lowest, a.highest);
    odd = clamped(unit_closed_open(w2, w3) * a.scale + a.shift, a.lowest, a.highest);
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
