#include "kernels/exact.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "kernels/cpu/isa.h"
#include "kernels/rounding.h"

namespace pyparam::exact {
namespace {

constexpr uint64_t kMask = 0xffffffffu;

// An integer without a sign, 32 bits a limb, times 2^(32 first). Room for any square of a sum;
// limbs beyond the size are not set.
struct Natural {
  static constexpr int kMost = 2 * (kLimbs + 4) + 2;

  int first = 0;
  int size = 0;
  uint32_t limbs[kMost];

  Natural() {}  // NOLINT: a million of them must not clear their limbs
  void trim() {
    while (size > 0 && limbs[size - 1] == 0) --size;
  }
};

void set_magnitude(Natural& out, const Number& number) {
  out.first = number.first;
  out.size = 0;
  for (const int64_t limb : number.limbs)
    out.limbs[out.size++] = static_cast<uint32_t>(limb < 0 ? -limb : limb);
}

bool is_negative(const Number& number) { return !number.limbs.empty() && number.limbs.back() < 0; }

void set_product(Natural& out, const Natural& a, const Natural& b) {
  out.first = a.first + b.first;
  out.size = a.size + b.size;
  std::fill(out.limbs, out.limbs + out.size, 0U);
  for (int i = 0; i < a.size; ++i) {
    uint64_t carry = 0;
    for (int j = 0; j < b.size; ++j) {
      carry += out.limbs[i + j] + static_cast<uint64_t>(a.limbs[i]) * b.limbs[j];
      out.limbs[i + j] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    out.limbs[i + b.size] = static_cast<uint32_t>(carry);
  }
  out.trim();
}

// a - b, which is not negative.
void set_difference(Natural& out, const Natural& a, const Natural& b) {
  const int first = b.size == 0 ? a.first : std::min(a.first, b.first);
  const int end = std::max(a.first + a.size, b.size == 0 ? first : b.first + b.size);
  const auto limb_of = [](const Natural& n, int i) -> int64_t {
    const int at = i - n.first;
    return at < 0 || at >= n.size ? 0 : n.limbs[at];
  };
  out.first = first;
  out.size = end - first;
  int64_t borrow = 0;
  for (int i = first; i < end; ++i) {
    borrow += limb_of(a, i) - limb_of(b, i);
    out.limbs[i - first] = static_cast<uint32_t>(borrow);
    borrow >>= 32;
  }
  out.trim();
}

// high + low, each times 2^exponent; high is the nearest float64, low what it leaves.
struct Pair {
  double high = 0;
  double low = 0;
  int exponent = 0;
};

// A number whose 128 highest bits are `top`, the first of them set, in units of 2^exponent, with
// something below them where `sticky`. To nearest, ties to even.
PYPARAM_INLINE Pair pair_of_top(unsigned __int128 top, int exponent, bool sticky) {
  constexpr uint64_t kHalf = uint64_t{1} << 63;
  const auto head = static_cast<uint64_t>(top >> 75);  // 53 bits
  // What they leave in units of their last bit, to 64 bits.
  const auto rest = static_cast<uint64_t>(top >> 11);
  const bool below = sticky || (static_cast<uint64_t>(top) & 0x7ff) != 0;
  const bool up = rest > kHalf || (rest == kHalf && (below || (head & 1) != 0));
  const double left = static_cast<double>(static_cast<int64_t>(rest)) * 0x1p-64;
  // As a signed number a half is minus one half.
  const double low = rest == kHalf && !up ? 0.5 : left;
  return {static_cast<double>(static_cast<int64_t>(head + up)), low, exponent + 75};
}

PYPARAM_INLINE Pair pair_of(unsigned __int128 n, int exponent) {
  const auto high = static_cast<uint64_t>(n >> 64);
  const auto low = static_cast<uint64_t>(n);
  // Up to 100 bits are two numbers of float64, whose sum is rounded once. The high one need not
  // have 53 bits then: powers of two change nothing that is calculated with it.
  constexpr int kHalf = 48;
  if (high >> (100 - 64) == 0) {
    const double upper = 0x1p48 * static_cast<double>(static_cast<int64_t>(n >> kHalf));
    const auto lower =
        static_cast<double>(static_cast<int64_t>(low & ((uint64_t{1} << kHalf) - 1)));
    const double sum = upper + lower;
    return {sum, lower - (sum - upper), exponent};
  }
  const int shift = __builtin_clzll(high);
  return pair_of_top(n << shift, exponent - shift, false);
}

Pair pair_of(const Natural& n) {
  if (n.size == 0) return {};
  // A limb more than 128 bits, for what the highest one does not fill.
  unsigned __int128 top = 0;
  for (int i = 1; i <= 4; ++i) top = top << 32 | (i <= n.size ? n.limbs[n.size - i] : 0);
  const uint64_t fifth = n.size >= 5 ? n.limbs[n.size - 5] : 0;
  bool sticky = false;
  for (int i = 6; i <= n.size; ++i) sticky |= n.limbs[n.size - i] != 0;
  const int shift = __builtin_clzll(static_cast<uint64_t>(top >> 64));
  const uint64_t pulled = fifth << shift;
  top = top << shift | pulled >> 32;
  sticky |= (pulled & kMask) != 0;
  return pair_of_top(top, 32 * (n.first + n.size - 4) - shift, sticky);
}

// To a power of two that float64's range need not hold; both sides of it by one rounding.
PYPARAM_INLINE double scaled(double value, int exponent) {
  if (exponent >= -1022 && exponent <= 1023) return value * power_of_two(exponent);
  return std::ldexp(value, exponent);
}

PYPARAM_INLINE double root(const Pair& p, int exponent) {
  const int odd = (p.exponent + exponent) & 1;
  const double high = odd != 0 ? p.high * 2 : p.high;
  const double low = odd != 0 ? p.low * 2 : p.low;
  if (high == 0) return 0;
  const double first = std::sqrt(high);
  const double correction = (__builtin_fma(-first, first, high) + low) / (2 * first);
  return scaled(first + correction, (p.exponent + exponent - odd) / 2);
}

// The number over a count, of which the inverse is given.
PYPARAM_INLINE Pair over(const Pair& p, double n, double inverse) {
  const double first = p.high / n;
  const double rest = (__builtin_fma(-first, n, p.high) + p.low) * inverse;
  const double sum = first + rest;
  return {sum, (first - sum) + rest, p.exponent};
}

Pair pair_of(const Number& number) {
  Natural n;
  set_magnitude(n, number);
  return pair_of(n);
}

// What a row is rounded from. `spread` is n sum(x^2) - (sum x)^2, which is n times the sum of
// squares about the mean: nothing cancels in it before it is rounded. Exponents are those of
// float64.
struct RowSums {
  Pair total, squares, spread;
  bool negative;  // the sum of the values
  double l1;
};

void write_no_sums(double* values) {
  values[kMean] = values[kStd] = values[kRms] = not_a_number();
  values[kL1] = values[kL2] = values[kM2] = values[kMeanLow] = values[kExponent] = 0;
}

// The roots of p * 2^exponent, by the steps of `root`.
PYPARAM_INLINE void roots(const Pairs<4>& p, const int (&exponents)[4], double (&out)[4]) {
  Pairs<4> even;
  double scales[4];
  bool in_range = true;
  for (int i = 0; i < 4; ++i) {
    const int odd = exponents[i] & 1;
    const int half = (exponents[i] - odd) / 2;
    even.high[i] = p.high[i] * (1 + odd);
    even.low[i] = p.low[i] * (1 + odd);
    in_range = in_range && half >= -1022 && half <= 1023;
    scales[i] = power_of_two(half);
  }
  exact::roots(even, out);
  for (int i = 0; i < 4; ++i) {
    if (in_range) {
      out[i] *= scales[i];
    } else if (out[i] != 0) {
      out[i] = scaled(out[i], (exponents[i] - (exponents[i] & 1)) / 2);
    }
  }
}

PYPARAM_INLINE void write_rounded(const RowSums& sums, double* values, int64_t count) {
  const auto n = static_cast<double>(count);
  const auto [total, squares, spread] = std::tie(sums.total, sums.squares, sums.spread);
  const double inverse = 1 / n;
  const Pairs<4> by_count = exact::over<false, 4>(
      {{total.high, squares.high, spread.high, 0}, {total.low, squares.low, spread.low, 0}},
      {n, n, n, n}, {inverse, inverse, inverse, inverse});
  const Pair about_mean{by_count.high[2], by_count.low[2], spread.exponent};
  // Of one value nothing is known.
  const Pair variance = count < 2 ? Pair{} : over(about_mean, n - 1, 1 / (n - 1));
  double root_of[4];
  roots({{squares.high, by_count.high[1], variance.high, 0},
         {squares.low, by_count.low[1], variance.low, 0}},
        {squares.exponent, squares.exponent, variance.exponent, 0}, root_of);
  const int64_t exponent = scaling_exponent(values[kMaxAbs]);
  const auto shift = static_cast<int>(exponent);
  const double sign = sums.negative ? -1 : 1;
  values[kMean] = sign * scaled(by_count.high[0], total.exponent);
  values[kMeanLow] = sign * scaled(by_count.low[0], total.exponent - shift);
  values[kL1] = sums.l1;
  values[kL2] = root_of[0];
  values[kRms] = root_of[1];
  values[kM2] = scaled(about_mean.high, about_mean.exponent - 2 * shift);
  values[kStd] = count < 2 ? not_a_number() : root_of[2];
  values[kExponent] = static_cast<double>(exponent);
}

// As a compiler with fused multiplication would, which has no call in it then.
#define PYPARAM_WRITE_ROUNDED(name, target)                                           \
  target void write_rounded_##name(const RowSums& s, double* values, int64_t count) { \
    write_rounded(s, values, count);                                                  \
  }
PYPARAM_WRITE_ROUNDED(baseline, )
#if defined(__x86_64__)
PYPARAM_WRITE_ROUNDED(avx2, PYPARAM_TARGET_AVX2)
#endif

void write_row_sums(const RowSums& sums, double* values, int64_t count) {
#if defined(__x86_64__)
  cpu::for_best_isa(write_rounded_baseline, write_rounded_avx2, write_rounded_avx2)(sums, values,
                                                                                    count);
#else
  write_rounded_baseline(sums, values, count);
#endif
}

Pair in_float64(Pair p, int limbs_below) {
  p.exponent -= 32 * limbs_below;
  return p;
}

void set_natural(Natural& out, int64_t value) {
  out.first = 0;
  out.size = 2;
  out.limbs[0] = static_cast<uint32_t>(value);
  out.limbs[1] = static_cast<uint32_t>(value >> 32);
  out.trim();
}

}  // namespace

void Accumulator::add(int first, const int64_t* limbs, size_t count) {
  if (count == 0) return;
  for (size_t i = 0; i < count; ++i) limbs_[static_cast<size_t>(first) + i] += limbs[i];
  low_ = std::min(low_, first);
  high_ = std::max(high_, first + static_cast<int>(count));
  if (++pending_ == kMostPending) carry();
}

void Accumulator::add_product(double value, double other) {
  int a = 0;
  int b = 0;
  const double x = std::ldexp(std::frexp(value, &a), 53);
  const double y = std::ldexp(std::frexp(other, &b), 53);
  const auto magnitude = static_cast<unsigned __int128>(static_cast<uint64_t>(std::fabs(x))) *
                         static_cast<uint64_t>(std::fabs(y));
  if (magnitude == 0) return;
  const int place = a + b - 106 + 32 * kBelow;
  const bool negative = (x < 0) != (y < 0);
  add(static_cast<uint64_t>(magnitude), place, negative);
  add(static_cast<uint64_t>(magnitude >> 64), place + 64, negative);
}

void Accumulator::carry() {
  int64_t carried = 0;
  int i = low_;
  for (; i < high_ || (carried != 0 && carried != -1); ++i) {
    carried += limbs_[i];
    limbs_[i] = static_cast<int64_t>(static_cast<uint64_t>(carried) & kMask);
    carried >>= 32;
  }
  high_ = std::max(high_, i);
  // What is left is the sign of all.
  if (carried != 0 && high_ > low_) limbs_[high_ - 1] -= int64_t{1} << 32;
  pending_ = 0;
}

Number Accumulator::number() {
  carry();
  while (high_ > low_ && limbs_[high_ - 1] == 0) --high_;
  if (high_ <= low_) {
    clear();
    return {};
  }
  if (limbs_[high_ - 1] < 0) {
    // All limbs of the top one's sign.
    int64_t borrow = 0;
    for (int i = low_; i < high_ - 1; ++i) {
      borrow += limbs_[i];
      limbs_[i] = borrow > 0 ? borrow - (int64_t{1} << 32) : borrow;
      borrow = borrow > 0 ? 1 : 0;
    }
    limbs_[high_ - 1] += borrow;
    while (high_ > low_ && limbs_[high_ - 1] == 0) --high_;
  }
  while (low_ < high_ && limbs_[low_] == 0) ++low_;
  return {low_, Limbs(limbs_ + low_, limbs_ + high_)};
}

void Accumulator::clear() {
  for (int i = low_; i < high_; ++i) limbs_[i] = 0;
  low_ = kLimbs + 4;
  high_ = 0;
  pending_ = 0;
}

Numbers numbers_of(Sums& sums) {
  return {sums.values.number(), sums.magnitudes.number(), sums.squares.number()};
}

void add(Sums& to, const Numbers& numbers) {
  to.values.add(numbers.values);
  to.magnitudes.add(numbers.magnitudes);
  to.squares.add(numbers.squares);
}

void add_rounded(Sums& to, const Statistics& s) {
  if (s.finite == 0) return;
  const auto n = static_cast<double>(s.finite);
  const double mean = mean_of(s);
  const double low = unscale(s.mean_low, s.exponent);
  to.values.add_product(mean, n);
  to.values.add_product(low, n);
  to.magnitudes.add(l1_of(s));
  // m2 + n mean^2, of the mean in both its parts.
  const double scale = unscale(1, s.exponent);
  to.squares.add_product(s.m2 * scale, scale);
  const double spread = n * mean;
  to.squares.add_product(spread, mean);
  to.squares.add_product(std::fma(n, mean, -spread), mean);
  to.squares.add_product(2 * spread, low);
}

double rounded(const Number& number) {
  const Pair p = pair_of(number);
  const double value = scaled(p.high, p.exponent - 32 * kBelow);
  return is_negative(number) ? -value : value;
}

double rounded(const Number& number, int64_t* exponent) {
  const Pair p = pair_of(number);
  *exponent = 0;
  if (p.high == 0) return 0;
  const int64_t reach = p.exponent - 32 * kBelow;
  const int64_t odd = reach & 1;
  *exponent = reach - odd;
  const double value = odd != 0 ? 2 * p.high : p.high;
  return is_negative(number) ? -value : value;
}

double rounded_root(const Number& number) { return root(pair_of(number), -32 * kBelow); }

void write_sums(const Numbers& sums, double* values, const int64_t* counts) {
  const int64_t n = counts[kFinite];
  if (n == 0) return write_no_sums(values);
  Natural total;
  Natural squares;
  Natural count;
  Natural raised;
  Natural square_of_total;
  Natural spread;
  set_magnitude(total, sums.values);
  set_magnitude(squares, sums.squares);
  // Limbs of products count from twice as far below.
  set_natural(count, n);
  set_product(raised, squares, count);
  raised.first += kBelow;
  set_product(square_of_total, total, total);
  set_difference(spread, raised, square_of_total);
  write_row_sums(
      {in_float64(pair_of(total), kBelow), in_float64(pair_of(squares), kBelow),
       in_float64(pair_of(spread), 2 * kBelow), is_negative(sums.values), rounded(sums.magnitudes)},
      values, n);
}

void write_sums(const Window& sums, double* values, const int64_t* counts) {
  const int64_t n = counts[kFinite];
  if (n == 0) return write_no_sums(values);
  const uint64_t total = magnitude_of(sums.values);
  const auto squares = static_cast<unsigned __int128>(sums.squares);
  const unsigned __int128 spread =
      static_cast<uint64_t>(n) * squares - static_cast<unsigned __int128>(total) * total;
  write_row_sums({pair_of(total, sums.exponent), pair_of(squares, 2 * sums.exponent),
                  pair_of(spread, 2 * sums.exponent), sums.values < 0,
                  scaled(static_cast<double>(sums.magnitudes), sums.exponent)},
                 values, n);
}

}  // namespace pyparam::exact
