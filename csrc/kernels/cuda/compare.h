// compare on a device: a block a chunk of a pair, then a block a pair. No torch header.
#pragma once

#include <type_traits>

#include "kernels/compare.h"
#include "kernels/cuda/values.h"
#include "kernels/difference.h"
#include "kernels/math.h"

namespace pyparam {

// A partial result covers this many elements.
constexpr int64_t kCompareChunk = int64_t{1} << 16;

// Two tables of tensors of equal shapes, cut into the same chunks.
struct PairView {
  TableView a;
  TableView b;
};

// A partial difference, and the largest magnitudes of both sides where squares may leave float64's
// range.
struct PairSums {
  Difference difference;
  double largest_a = 0;
  double largest_b = 0;
};
PYPARAM_DEVICE PairSums combine(const PairSums& a, const PairSums& b) {
  PairSums out;
  out.difference = combine(a.difference, b.difference);
  out.largest_a = b.largest_a > a.largest_a ? b.largest_a : a.largest_a;
  out.largest_b = b.largest_b > a.largest_b ? b.largest_b : a.largest_b;
  return out;
}

PYPARAM_FORMULA double magnitude(double x) { return bit_cast<double>(magnitude_bits(x)); }

// What one thread has seen.
struct ThreadPairs {
  double max_abs = 0;
  double sum_abs = 0;
  double squares = 0;
  double squares_a = 0;
  double squares_b = 0;
  double product = 0;
  double largest_a = 0;
  double largest_b = 0;
  int32_t finite = 0;
  int32_t differing = 0;
  int32_t nonfinite = 0;
  int32_t first = INT32_MAX;  // counted from the chunk's first element

  template <bool kUnbounded>
  PYPARAM_DEVICE void take(double a, double b, double distance) {
    finite += 1;
    max_abs = distance > max_abs ? distance : max_abs;
    sum_abs += distance;
    squares += distance * distance;
    squares_a += a * a;
    squares_b += b * b;
    product += a * b;
    if constexpr (kUnbounded) {
      largest_a = magnitude(a) > largest_a ? magnitude(a) : largest_a;
      largest_b = magnitude(b) > largest_b ? magnitude(b) : largest_b;
    }
  }
  // Element `index` is not the same on both sides.
  PYPARAM_DEVICE void differs(int32_t index) {
    differing += 1;
    first = index < first ? index : first;
  }
  PYPARAM_DEVICE PairSums finish(int64_t begin) const {
    PairSums out;
    Difference& d = out.difference;
    d.max_abs = max_abs;
    d.sum_abs.value = sum_abs;
    d.squares.value = squares;
    d.squares_a.value = squares_a;
    d.squares_b.value = squares_b;
    d.product.value = product;
    d.finite = finite;
    d.differing = differing;
    d.nonfinite = nonfinite;
    if (differing > 0) d.first = begin + first;
    out.largest_a = largest_a;
    out.largest_b = largest_b;
    return out;
  }
};

// The distance of two stored values of one type, exact before it is rounded to float64 once.
template <typename Reader, typename Stored, typename Value>
PYPARAM_DEVICE double distance_of(Stored stored_a, Stored stored_b, Value a, Value b) {
  constexpr bool kLong = std::is_same_v<Reader, ReadInteger<int64_t, double>> ||
                         std::is_same_v<Reader, ReadInteger<uint64_t, double>>;
  if constexpr (kLong) return distance(stored_a, stored_b);
  return magnitude(static_cast<double>(a) - static_cast<double>(b));
}

template <typename T>
PYPARAM_FORMULA bool agrees(T a, T b) {
  return a == b || (a != a && b != b);
}

// Calls take(stored_a, stored_b, first, n) for each group of this thread, as each_group does, with
// arrays of stored values of two dense or strided runs of one type.
template <typename Stored, int kThreads, int kInFlight, typename Take>
PYPARAM_DEVICE void each_pair_of_groups(const Values& a, const Values& b, int thread,
                                        const Take& take) {
  constexpr int kGroup = kVectorBytes / static_cast<int>(sizeof(Stored));
  const auto groups = static_cast<int32_t>((a.length + kGroup - 1) / kGroup);
  int32_t g = thread;
  if (a.dense() && b.dense()) {
    const int64_t bytes = static_cast<int64_t>(a.length) * a.bytes;
    const VectorRun run_a(a.at(0), bytes);
    const VectorRun run_b(b.at(0), bytes);
    const auto whole = static_cast<int32_t>(run_a.whole < run_b.whole ? run_a.whole : run_b.whole);
    const auto take_vectors = [&](const Vector16& va, const Vector16& vb, int32_t group) {
      Stored x[kGroup];
      Stored y[kGroup];
      PYPARAM_UNROLL(16)
      for (int i = 0; i < kGroup; ++i) {
        x[i] = element_of<Stored>(va.word, i);
        y[i] = element_of<Stored>(vb.word, i);
      }
      take(x, y, group * kGroup, kGroup);
    };
    if constexpr (kInFlight > 1) {
      PYPARAM_UNROLL(1)
      for (; g + (kInFlight - 1) * kThreads < whole; g += kInFlight * kThreads) {
        Vector16 va[kInFlight];
        Vector16 vb[kInFlight];
        run_a.load(g, kThreads, va);
        run_b.load(g, kThreads, vb);
        PYPARAM_UNROLL(4)
        for (int u = 0; u < kInFlight; ++u) take_vectors(va[u], vb[u], g + u * kThreads);
      }
    }
    PYPARAM_UNROLL(1)
    for (; g < whole; g += kThreads) take_vectors(run_a.load(g), run_b.load(g), g);
  }
  PYPARAM_UNROLL(1)
  for (; g < groups; g += kThreads) {
    const int32_t first = g * kGroup;
    const int n = a.length - first < kGroup ? a.length - first : kGroup;
    Stored x[kGroup];
    Stored y[kGroup];
    PYPARAM_UNROLL(16)
    for (int i = 0; i < kGroup; ++i) {
      const int32_t at = first + (i < n ? i : n - 1);
      x[i] = read_as<Stored>(a.at(at));
      y[i] = read_as<Stored>(b.at(at));
    }
    take(x, y, first, n);
  }
}

// One chunk of a pair.
template <int kThreadCount>
struct CompareChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 2;
  struct Arguments {
    PairView pairs;
    Difference* parts;  // one a chunk
  };
  struct Shared {
    Slots<PairSums, kThreads> sums;
    Slots<PairSums, 1> all;
    ByteTable table;
  };

  // Pairs of one type.
  static PYPARAM_DEVICE void alike(const Values& a, const Values& b, int thread,
                                   const ByteTable& table, ThreadPairs& sums) {
    with_reader<false>(a.part, table, [&](const auto& read) {
      using Reader = std::decay_t<decltype(read)>;
      using Stored = typename Reader::storage;
      using Value = decltype(read(Stored()));
      constexpr bool kUnbounded = std::is_same_v<Reader, ReadAs<Float64>>;
      constexpr bool kReal = sizeof(Value) == 4 || kUnbounded;
      constexpr int kInFlight = InFlight<Reader>::kVectors > 1 ? 2 : 1;
      each_pair_of_groups<Stored, kThreads, kInFlight>(
          a, b, thread, [&](const auto& x, const auto& y, int32_t first, int n) {
            constexpr int kGroup = kVectorBytes / static_cast<int>(sizeof(Stored));
            Value from_a[kGroup];
            Value from_b[kGroup];
            // One branch a group: most are whole and finite.
            bool odd = n < kGroup;
            PYPARAM_UNROLL(16)
            for (int i = 0; i < kGroup; ++i) {
              from_a[i] = read(x[i]);
              from_b[i] = read(y[i]);
              if (kReal) odd = odd || !is_finite(from_a[i]) || !is_finite(from_b[i]);
            }
            const auto add = [&](int i) {
              sums.template take<kUnbounded>(static_cast<double>(from_a[i]),
                                             static_cast<double>(from_b[i]),
                                             distance_of<Reader>(x[i], y[i], from_a[i], from_b[i]));
            };
            bool before = false;  // whether the element's first part differs
            const auto mark = [&](int i) {
              const bool differs = x[i] != y[i];
              if (a.parts == 1) {
                if (differs) sums.differs(first + i);
              } else if (i % 2 == 1) {
                if (differs || before) sums.differs((first + i) / 2);
              }
              before = differs;
              return differs;
            };
            if (!odd) {
              PYPARAM_UNROLL(16)
              for (int i = 0; i < kGroup; ++i) {
                mark(i);
                add(i);
              }
              return;
            }
            PYPARAM_UNROLL(16)
            for (int i = 0; i < kGroup; ++i) {
              if (i >= n) continue;
              const bool differs = mark(i);
              if (kReal && !(is_finite(from_a[i]) && is_finite(from_b[i]))) {
                sums.nonfinite += differs ? 1 : 0;
              } else {
                add(i);
              }
            }
          });
    });
  }

  // The part `part` of an element; 0 where the type has none.
  static PYPARAM_DEVICE double read_part(const Values& values, int32_t element, int part) {
    if (part >= values.parts) return 0.0;
    return read_value(values.part, values.at(element * values.parts + part));
  }
  // Pairs of two types, by value: zeros of both signs are one value, and so are all NaNs.
  static PYPARAM_DEVICE void mixed(const Values& a, const Values& b, int32_t length, int parts,
                                   int thread, ThreadPairs& sums) {
    PYPARAM_UNROLL(1)
    for (int32_t i = thread; i < length; i += kThreads) {
      bool same = true;
      PYPARAM_UNROLL(1)
      for (int part = 0; part < parts; ++part) {
        const double x = read_part(a, i, part);
        const double y = read_part(b, i, part);
        const bool agree = agrees(x, y);
        same = same && agree;
        if (!is_finite(x) || !is_finite(y)) {
          sums.nonfinite += agree ? 0 : 1;
        } else {
          sums.template take<true>(x, y, magnitude(x - y));
        }
      }
      if (!same) sums.differs(i);
    }
  }
  // The sums once more, scaled so that they stay in range. Of counts and extremes it knows nothing.
  static PYPARAM_DEVICE PairSums scaled(const Values& a, const Values& b, int32_t length, int parts,
                                        int thread, const PairSums& all) {
    const int64_t exponent_a = scaling_exponent(all.largest_a);
    const int64_t exponent_b = scaling_exponent(all.largest_b);
    // Apart by more than the largest number?
    const bool too_far = !is_finite(all.difference.max_abs);
    const int64_t exponent = too_far ? 1024 : scaling_exponent(all.difference.max_abs);
    PairSums out;
    Difference& d = out.difference;
    d.sum_abs.exponent = exponent;
    d.squares.exponent = 2 * exponent;
    d.squares_a.exponent = 2 * exponent_a;
    d.squares_b.exponent = 2 * exponent_b;
    d.product.exponent = exponent_a + exponent_b;
    PYPARAM_UNROLL(1)
    for (int32_t i = thread; i < length * parts; i += kThreads) {
      const double x = read_part(a, i / parts, i % parts);
      const double y = read_part(b, i / parts, i % parts);
      if (!is_finite(x) || !is_finite(y)) continue;
      const double apart = too_far ? magnitude(shifted(x, -exponent) - shifted(y, -exponent))
                                   : shifted(magnitude(x - y), -exponent);
      const double from_a = shifted(x, -exponent_a);
      const double from_b = shifted(y, -exponent_b);
      d.sum_abs.value += apart;
      d.squares.value += apart * apart;
      d.squares_a.value += from_a * from_a;
      d.squares_b.value += from_b * from_b;
      d.product.value += from_a * from_b;
    }
    return out;
  }

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& arguments, Shared& shared) {
    const PairView& pairs = arguments.pairs;
    const ChunkRow chunk = pairs.a.chunks[block.index()];
    const Values a = values_of(pairs.a, pairs.a.tensors[chunk.tensor], chunk.begin, chunk.length);
    const Values b = values_of(pairs.b, pairs.b.tensors[chunk.tensor], chunk.begin, chunk.length);
    // Integers of 16 and 32 bits are float64 exactly, so that by value is bit by bit.
    const bool one_type = a.part == b.part && a.parts == b.parts && !is_middling_integer(a.part);
    const int parts = a.parts > b.parts ? a.parts : b.parts;
    if (one_type)
      block.each([&](int thread) { fill_table<kThreads>(a.part, thread, shared.table); });
    block.each([&](int thread) {
      ThreadPairs sums;
      if (one_type) {
        alike(a, b, thread, shared.table, sums);
      } else {
        mixed(a, b, chunk.length, parts, thread, sums);
      }
      shared.sums[thread] = sums.finish(chunk.begin);
    });
    const auto add = [](const PairSums& x, const PairSums& y) { return combine(x, y); };
    block.combine(shared.sums, kThreads, add);
    block.each([&](int thread) {
      if (thread == 0) shared.all[0] = shared.sums[0];
    });
    PairSums& all = shared.all[0];
    const bool unbounded = a.part == Dtype::kDouble || b.part == Dtype::kDouble;
    const bool ordinary = is_ordinary(all.largest_a) && is_ordinary(all.largest_b) &&
                          is_ordinary(all.difference.max_abs);
    if (unbounded && !ordinary) {
      block.each([&](int thread) {
        shared.sums[thread] = scaled(a, b, chunk.length, parts, thread, all);
      });
      block.combine(shared.sums, kThreads, add);
      block.last([&](int thread) {
        if (thread > 0) return;
        const Difference& sums = shared.sums[0].difference;
        all.difference.sum_abs = sums.sum_abs;
        all.difference.squares = sums.squares;
        all.difference.squares_a = sums.squares_a;
        all.difference.squares_b = sums.squares_b;
        all.difference.product = sums.product;
      });
    }
    block.last([&](int thread) {
      if (thread == 0) arguments.parts[block.index()] = all.difference;
    });
  }
};

// One pair, from its chunks.
template <int kThreadCount>
struct CompareRow {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 4;
  struct Arguments {
    TableView table;
    const Difference* parts;
    double* values;
    int64_t* counts;
  };
  struct Shared {
    Slots<Difference, kThreads> parts;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int64_t t = block.index();
    const int64_t first = a.table.tensors[t].first_chunk;
    const int64_t chunks = a.table.tensors[t + 1].first_chunk - first;
    const int busy = chunks < kThreads ? static_cast<int>(chunks) : kThreads;
    block.each([&](int thread) {
      if (thread > 0 && thread >= busy) return;
      Difference sum;
      PYPARAM_UNROLL(1)
      for (int64_t c = thread; c < chunks; c += kThreads) sum = combine(sum, a.parts[first + c]);
      shared.parts[thread] = sum;
    });
    block.combine(shared.parts, busy,
                  [](const Difference& x, const Difference& y) { return combine(x, y); });
    block.last([&](int thread) {
      if (thread > 0) return;
      write_difference(shared.parts[0], a.table.tensors[t].numel, a.values + t * kDifferenceValues,
                       a.counts + t * kDifferenceCounts);
    });
  }
};

// The launches; `parts` has one a chunk.
template <int kThreads = 256, typename Launch>
void launch_compare(const Launch& launch, const PairView& pairs, Difference* parts, double* values,
                    int64_t* counts) {
  launch(CompareChunk<kThreads>{}, pairs.a.chunk_count, {pairs, parts});
  launch(CompareRow<kThreads / 2>{}, pairs.a.tensor_count, {pairs.a, parts, values, counts});
}

}  // namespace pyparam
