#include "kernels/exact.h"

#include <algorithm>
#include <cmath>

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

// high + low, each times 2^exponent; high has 53 bits and is the nearest float64, low what it
// leaves.
struct Pair {
  double high = 0;
  double low = 0;
  int exponent = 0;
};

// Rounds up to 128 bits and one that stands for all below: to nearest, ties to even.
Pair pair_of(const Natural& n) {
  if (n.size == 0) return {};
  unsigned __int128 top = 0;
  const int taken = std::min(n.size, 4);
  for (int i = 0; i < taken; ++i) top = top << 32 | n.limbs[n.size - 1 - i];
  bool sticky = false;
  for (int i = 0; i + taken < n.size; ++i) sticky |= n.limbs[i] != 0;
  int exponent = 32 * (n.first + n.size - taken);
  while (top >> 127 == 0) {
    const auto high_word = static_cast<uint64_t>(top >> 64);
    const int shift = high_word == 0 ? 64 : std::max(1, __builtin_clzll(high_word));
    top <<= shift;
    exponent -= shift;
  }
  uint64_t head = static_cast<uint64_t>(top >> 75);  // 53 bits
  const unsigned __int128 rest = top << 53;          // of 2^128: what they leave
  const auto half = static_cast<unsigned __int128>(1) << 127;
  const bool up = rest > half || (rest == half && (sticky || (head & 1) != 0));
  // The rest in units of the head's last bit, to 64 bits.
  const double left = std::ldexp(static_cast<double>(static_cast<uint64_t>(rest >> 64)), -64);
  head += up;
  return {static_cast<double>(head), up ? left - 1 : left, exponent + 75};
}

// To a power of two that float64's range need not hold; both sides of it by one rounding.
double scaled(double value, int exponent) { return std::ldexp(value, exponent); }

double root(const Pair& p, int exponent) {
  const int odd = (p.exponent + exponent) & 1;
  const double high = odd != 0 ? p.high * 2 : p.high;
  const double low = odd != 0 ? p.low * 2 : p.low;
  if (high == 0) return 0;
  const double first = std::sqrt(high);
  const double correction = (std::fma(-first, first, high) + low) / (2 * first);
  return scaled(first + correction, (p.exponent + exponent - odd) / 2);
}

Pair over(const Pair& p, int64_t count) {
  const auto n = static_cast<double>(count);
  const double first = p.high / n;
  const double rest = (std::fma(-first, n, p.high) + p.low) / n;
  const double sum = first + rest;
  return {sum, (first - sum) + rest, p.exponent};
}

Pair pair_of(const Number& number) {
  Natural n;
  set_magnitude(n, number);
  return pair_of(n);
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
  if (n == 0) return;
  constexpr int kUnit = -32 * kBelow;
  Natural total;
  Natural squares;
  Natural count;
  Natural raised;
  Natural square_of_total;
  Natural spread;
  set_magnitude(total, sums.values);
  set_magnitude(squares, sums.squares);
  const double sign = is_negative(sums.values) ? -1 : 1;
  const Pair mean = over(pair_of(total), n);
  const Pair of_squares = pair_of(squares);
  // n sum(x^2) - (sum x)^2, which is n times the sum of squares about the mean; nothing cancels in
  // it before it is rounded. Its limbs count from twice as far below.
  set_natural(count, n);
  set_product(raised, squares, count);
  raised.first += kBelow;
  set_product(square_of_total, total, total);
  set_difference(spread, raised, square_of_total);
  const Pair about_mean = over(pair_of(spread), n);
  const int64_t exponent = scaling_exponent(values[kMaxAbs]);
  const auto shift = static_cast<int>(exponent);
  values[kMean] = sign * scaled(mean.high, mean.exponent + kUnit);
  values[kMeanLow] = sign * scaled(mean.low, mean.exponent + kUnit - shift);
  values[kL1] = rounded(sums.magnitudes);
  values[kL2] = root(of_squares, kUnit);
  values[kRms] = root(over(of_squares, n), kUnit);
  values[kM2] = scaled(about_mean.high, about_mean.exponent + 2 * kUnit - 2 * shift);
  values[kStd] = n < 2 ? not_a_number() : root(over(about_mean, n - 1), 2 * kUnit);
  values[kExponent] = static_cast<double>(exponent);
}

}  // namespace pyparam::exact
