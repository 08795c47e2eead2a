// Sums without rounding: fixed-point numbers of 32-bit limbs that hold any sum of float64 values
// and of their squares. Integers add up to the same in any order, so such a sum is the same however
// its values are cut among threads, chunks or ranks. No torch header.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/math.h"
#include "kernels/measure.h"

namespace pyparam::exact {

// Limb i counts multiples of 2^(32 i - 32 kBelow): from below the square of the least subnormal
// float64 to above the square of the largest one times 2^63.
inline constexpr int kBelow = 68;
inline constexpr int kLimbs = kBelow + 68;

// A few numbers of 64 bits, without memory of their own while they are few.
class Limbs {
 public:
  Limbs() = default;
  Limbs(const int64_t* begin, const int64_t* end) { assign(begin, end); }
  Limbs(const Limbs& other) { assign(other.begin(), other.end()); }
  Limbs(Limbs&&) noexcept = default;
  Limbs& operator=(const Limbs& other) {
    if (this != &other) assign(other.begin(), other.end());
    return *this;
  }
  Limbs& operator=(Limbs&&) noexcept = default;

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  const int64_t* begin() const { return size_ <= kFew ? few_ : many_.data(); }
  const int64_t* end() const { return begin() + size_; }
  const int64_t* data() const { return begin(); }
  int64_t back() const { return begin()[size_ - 1]; }

 private:
  void assign(const int64_t* begin, const int64_t* end) {
    size_ = static_cast<size_t>(end - begin);
    if (size_ > kFew) {
      many_.assign(begin, end);
    } else {
      std::copy(begin, end, few_);
    }
  }

  static constexpr size_t kFew = 6;
  size_t size_ = 0;
  int64_t few_[kFew];
  std::vector<int64_t> many_;
};

// A number as limbs [first, first + limbs.size()), all of one sign and below 2^32 in magnitude,
// none at the ends zero. Ranks may add up to 2^31 of them limb by limb.
struct Number {
  int first = 0;
  Limbs limbs;
};

// Sums of a few thousand values of like size as plain integers: of values and magnitudes in units
// of 2^exponent, of squares in units of 2^(2 exponent). Most chunks need nothing larger.
struct Window {
  // Values lie below 2^kBits units, and there are at most 2^kCountBits of them: then what a row is
  // rounded from, the number of values times the sum of squares, stays within 128 bits.
  static constexpr int kBits = 42;
  static constexpr int kCountBits = 16;

  int exponent = 0;
  bool empty = true;
  int64_t values = 0;
  int64_t magnitudes = 0;
  __int128 squares = 0;
};

constexpr uint64_t magnitude_of(int64_t value) {
  return value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

// A sum under way. The window [low, high) has all limbs that are not zero.
class Accumulator {
 public:
  // value * 2^shift, which squares of float64 values reach; value is finite.
  void add(double value, int shift = 0) {
    const uint64_t bits = bit_cast<uint64_t>(value);
    const auto exponent = static_cast<int>(bits >> 52 & 0x7ff);
    const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
    const uint64_t mantissa = exponent == 0 ? fraction : fraction | uint64_t{1} << 52;
    if (mantissa == 0) return;
    add(mantissa, (exponent == 0 ? 1 : exponent) - 1075 + shift + 32 * kBelow, (bits >> 63) != 0);
  }
  void add_square(double value) {
    const uint64_t bits = bit_cast<uint64_t>(value);
    const auto exponent = static_cast<int>(bits >> 52 & 0x7ff);
    const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
    const uint64_t mantissa = exponent == 0 ? fraction : fraction | uint64_t{1} << 52;
    if (mantissa == 0) return;
    const auto square = static_cast<unsigned __int128>(mantissa) * mantissa;
    const int place = 2 * ((exponent == 0 ? 1 : exponent) - 1075) + 32 * kBelow;
    add(static_cast<uint64_t>(square), place, false);
    if (const auto high = static_cast<uint64_t>(square >> 64); high != 0)
      add(high, place + 64, false);
  }
  // value * other, both finite.
  void add_product(double value, double other);
  // magnitude * 2^exponent, or less it; exponents are those of float64 values and their squares.
  void add_units(uint64_t magnitude, int exponent, bool negative) {
    add(magnitude, exponent + 32 * kBelow, negative);
  }
  void add(const Number& number) { add(number.first, number.limbs.data(), number.limbs.size()); }
  void add(int first, const int64_t* limbs, size_t count);

  Number number();  // the sum so far
  void clear();
  bool untouched() const { return high_ == 0; }

 private:
  // magnitude * 2^(place - 32 kBelow)
  void add(uint64_t magnitude, int place, bool negative) {
    const int limb = place >> 5;
    const auto shifted = static_cast<unsigned __int128>(magnitude) << (place & 31);
    const int64_t sign = negative ? -1 : 1;
    limbs_[limb] += sign * static_cast<int64_t>(static_cast<uint32_t>(shifted));
    limbs_[limb + 1] += sign * static_cast<int64_t>(static_cast<uint32_t>(shifted >> 32));
    limbs_[limb + 2] += sign * static_cast<int64_t>(shifted >> 64);
    if (limb < low_) low_ = limb;
    if (limb + 3 > high_) high_ = limb + 3;
    if (++pending_ == kMostPending) carry();
  }
  void carry();

  static constexpr int kMostPending = 1 << 30;
  int64_t limbs_[kLimbs + 4] = {};
  int low_ = kLimbs + 4;
  int high_ = 0;
  int pending_ = 0;
};

// The sums that every statistic of a run of values comes of: of x, |x| and x^2, of the finite ones.
struct Sums {
  Accumulator values, magnitudes, squares;

  void add(double value) {
    values.add(value);
    magnitudes.add(value < 0 ? -value : value);
    squares.add_square(value);
  }
  void add(const Window& window) {
    if (window.empty) return;
    const auto squared = static_cast<unsigned __int128>(window.squares);
    values.add_units(magnitude_of(window.values), window.exponent, window.values < 0);
    magnitudes.add_units(static_cast<uint64_t>(window.magnitudes), window.exponent, false);
    squares.add_units(static_cast<uint64_t>(squared), 2 * window.exponent, false);
    squares.add_units(static_cast<uint64_t>(squared >> 64), 2 * window.exponent + 64, false);
  }
  void clear() {
    values.clear();
    magnitudes.clear();
    squares.clear();
  }
  // True of no values and of zeros.
  bool untouched() const { return magnitudes.untouched(); }
};

// Windows added up by their exponents. Adding to one is three additions of integers, where limbs
// take dozens.
class Windows {
 public:
  // A window of so many values at the most.
  void add(const Window& window, int64_t count, Sums& spilled) {
    if (window.empty) return;
    Slot& slot = slots_[window.exponent - kLeast];
    slot.count += count;
    if (slot.count > kMostValues) {
      spill(slot, window.exponent, spilled);
      slot.count = count;
    }
    slot.values += window.values;
    slot.magnitudes += window.magnitudes;
    slot.squares += window.squares;
  }
  void spill(Sums& to) {
    for (int i = 0; i < kExponents; ++i) spill(slots_[i], i + kLeast, to);
  }

 private:
  struct Slot {
    int64_t values = 0;
    int64_t magnitudes = 0;
    __int128 squares = 0;
    int64_t count = 0;
  };
  static void spill(Slot& slot, int exponent, Sums& to) {
    if (slot.count == 0) return;
    to.add(Window{exponent, false, slot.values, slot.magnitudes, slot.squares});
    slot = {};
  }

  // Those of float32 values, whose own are from -126 to 127.
  static constexpr int kLeast = -126 - Window::kBits + 1;
  static constexpr int kExponents = 254;
  // Values and magnitudes stay within 63 bits.
  static constexpr int64_t kMostValues = int64_t{1} << (62 - Window::kBits);
  static_assert(Window::kCountBits <= 62 - Window::kBits);
  Slot slots_[kExponents];
};

struct Numbers {
  Number values, magnitudes, squares;
};
Numbers numbers_of(Sums& sums);
void add(Sums& to, const Numbers& numbers);

// The exact sums of values of which only rounded statistics are known: of their mean, l1 and m2.
void add_rounded(Sums& to, const Statistics& s);

// Fills in what a row of the measure op has of sums, rounded once from exact ones; extremes and
// counts are there already (write_unsummed). A function of the sums, the count of finite values and
// the extremes alone.
void write_sums(const Numbers& sums, double* values, const int64_t* counts);
// The same bits, of sums that a window holds.
void write_sums(const Window& sums, double* values, const int64_t* counts);

// The number, rounded to the nearest float64; infinite beyond its range.
double rounded(const Number& number);
// Its square root, of a number that is not negative.
double rounded_root(const Number& number);
// The same as a value in [2^52, 2^54) times 2^exponent, with an even exponent: for numbers beyond
// float64's range.
double rounded(const Number& number, int64_t* exponent);

}  // namespace pyparam::exact
