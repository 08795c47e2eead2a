// measure on a device: a block a chunk, then a block a tensor, then one for the total. No torch
// header.
#pragma once

#include <type_traits>

#include "kernels/cuda/values.h"
#include "kernels/math.h"
#include "kernels/measure.h"

namespace pyparam {

// A partial result covers this many elements.
constexpr int64_t kMeasureChunk = int64_t{1} << 16;

PYPARAM_FORMULA float lesser(float a, float b) { return fminf(a, b); }
PYPARAM_FORMULA float greater(float a, float b) { return fmaxf(a, b); }
PYPARAM_FORMULA double lesser(double a, double b) { return fmin(a, b); }
PYPARAM_FORMULA double greater(double a, double b) { return fmax(a, b); }

// The magnitude bits of an infinity.
PYPARAM_FORMULA uint32_t infinity_bits(float) { return 0x7f800000u; }
PYPARAM_FORMULA uint64_t infinity_bits(double) { return 0x7ff0000000000000ull; }

// What one thread has seen. The sums are of values less the first finite one, so that values far
// from zero for their spread lose nothing.
template <typename Value>
struct ThreadSums {
  using Bits = decltype(magnitude_bits(Value()));

  Bits normal;   // magnitude bits of the smallest normal value
  double scale;  // of the moments; 1 for float32
  Value min = bit_cast<Value>(infinity_bits(Value()));
  Value max = -bit_cast<Value>(infinity_bits(Value()));
  double shift = 0;
  double sum = 0;
  double squares = 0;
  double l1 = 0;
  int32_t taken = 0;
  int32_t zeros = 0;
  int32_t small = 0;
  int32_t nans = 0;
  int32_t posinfs = 0;
  int32_t neginfs = 0;
  bool started = false;

  PYPARAM_DEVICE ThreadSums(Bits normal, double scale) : normal(normal), scale(scale) {}

  PYPARAM_DEVICE double scaled(Value x) const {
    if constexpr (sizeof(Value) == 4) return static_cast<double>(x);
    return static_cast<double>(x) * scale;
  }
  template <int kGroup>
  PYPARAM_DEVICE void take(const Value (&x)[kGroup], int n) {
    if (!started) {
      PYPARAM_UNROLL(16)
      for (int i = 0; i < kGroup; ++i) {
        if (started || i >= n || !is_finite(x[i])) continue;
        shift = scaled(x[i]);
        started = true;
      }
    }
    taken += n;
    // One branch a group: most have nothing to count.
    bool odd = n < kGroup;
    PYPARAM_UNROLL(16)
    for (int i = 0; i < kGroup; ++i) odd = odd || is_odd(x[i]);
    if (odd) {
      PYPARAM_UNROLL(16)
      for (int i = 0; i < kGroup; ++i) {
        if (i < n && count(x[i])) add(x[i]);
      }
    } else {
      PYPARAM_UNROLL(16)
      for (int i = 0; i < kGroup; ++i) add(x[i]);
    }
  }
  // Whether it is a zero, a subnormal, an infinity or a NaN, by one comparison.
  PYPARAM_DEVICE bool is_odd(Value x) const {
    return magnitude_bits(x) - normal >= infinity_bits(x) - normal;
  }
  // Counts what is odd; whether the value is finite.
  PYPARAM_DEVICE bool count(Value x) {
    const Bits bits = magnitude_bits(x);
    const Bits infinite = infinity_bits(x);
    if (bits >= infinite) {
      nans += bits > infinite;
      posinfs += x > 0 ? 1 : 0;
      neginfs += x < 0 ? 1 : 0;
      return false;
    }
    zeros += bits == 0;
    small += bits < normal;
    return true;
  }
  PYPARAM_DEVICE void add(Value x) {
    min = lesser(min, x);
    max = greater(max, x);
    const double value = scaled(x);
    const double moved = value - shift;
    sum += moved;
    squares += moved * moved;
    l1 += bit_cast<double>(magnitude_bits(value));
  }
  PYPARAM_DEVICE Statistics finish(int64_t exponent) const {
    Statistics s;
    s.finite = taken - nans - posinfs - neginfs;
    s.zeros = zeros;
    s.subnormals = small - zeros;
    s.nans = nans;
    s.posinfs = posinfs;
    s.neginfs = neginfs;
    s.min = static_cast<double>(min);
    s.max = static_cast<double>(max);
    s.exponent = exponent;
    s.l1 = l1;
    set_moments(s, shift, sum, squares);
    return s;
  }
};

// The statistics of the values that one thread takes.
template <int kThreads>
PYPARAM_DEVICE Statistics measure_thread(const Values& values, int thread, int64_t exponent,
                                         const ByteTable& table) {
  Statistics out;
  with_reader(values.part, table, [&](const auto& read) {
    using Reader = std::decay_t<decltype(read)>;
    using Value = decltype(read(typename Reader::storage()));
    decltype(magnitude_bits(Value())) normal;
    if constexpr (sizeof(Value) == 4) {
      normal = magnitude_bits(smallest_normal(values.part));
    } else {
      normal = 0x0010000000000000ull;
    }
    ThreadSums<Value> sums(normal, power_of_two(-static_cast<int>(exponent)));
    each_group<kThreads>(read, values, thread, [&](const auto& x, int n) { sums.take(x, n); });
    out = sums.finish(exponent);
  });
  return out;
}

// One chunk.
template <int kThreadCount>
struct MeasureChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 3;
  struct Arguments {
    TableView table;
    Statistics* parts;  // one a chunk
  };
  struct Shared {
    Slots<Statistics, kThreads> parts;
    ByteTable table;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const Values values = values_of(a.table, a.table.chunks[block.index()]);
    typename Block::template Local<int64_t> exponent;
    block.each([&](int thread) {
      exponent[thread] = 0;
      fill_table<kThreads>(values.part, thread, shared.table);
    });
    const int busy = threads_with_groups<kThreads>(values);
    // Once more where squares of float64 values leave the range.
    PYPARAM_UNROLL(1)
    for (int pass = 0; pass < 2; ++pass) {
      block.each([&](int thread) {
        if (thread < busy) {
          shared.parts[thread] =
              measure_thread<kThreads>(values, thread, exponent[thread], shared.table);
        }
      });
      block.combine(shared.parts, busy,
                    [](const Statistics& x, const Statistics& y) { return combine(x, y); });
      if (pass == 1 || values.part != Dtype::kDouble) break;
      block.each([&](int thread) {
        const Statistics& all = shared.parts[0];
        exponent[thread] = all.finite == 0 ? 0 : scaling_exponent(max_abs_of(all));
      });
      if (exponent[0] == 0) break;
    }
    block.last([&](int thread) {
      if (thread == 0) a.parts[block.index()] = shared.parts[0];
    });
  }
};

// One tensor, from its chunks.
template <int kThreadCount>
struct MeasureRow {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 4;
  struct Arguments {
    TableView table;
    const Statistics* parts;
    double* values;
    int64_t* counts;
  };
  struct Shared {
    Slots<Statistics, kThreads> parts;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int64_t t = block.index();
    const TensorRow row = a.table.tensors[t];
    const int64_t first = row.first_chunk;
    const int64_t chunks = a.table.tensors[t + 1].first_chunk - first;
    const int busy = chunks < kThreads ? static_cast<int>(chunks) : kThreads;
    block.each([&](int thread) {
      if (thread > 0 && thread >= busy) return;
      Statistics sum;
      if (thread < busy) sum = a.parts[first + thread];
      PYPARAM_UNROLL(1)
      for (int64_t c = thread + kThreads; c < chunks; c += kThreads)
        sum = combine(sum, a.parts[first + c]);
      shared.parts[thread] = sum;
    });
    block.combine(shared.parts, busy,
                  [](const Statistics& x, const Statistics& y) { return combine(x, y); });
    block.last([&](int thread) {
      if (thread > 0) return;
      write_row(shared.parts[0], row.numel,
                row.numel * element_bytes(static_cast<Dtype>(row.dtype)),
                a.values + t * kValueColumns, a.counts + t * kCountColumns);
    });
  }
};

// The last row, from the others. One block.
template <int kThreadCount>
struct MeasureTotal {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 1;
  struct Arguments {
    int64_t rows;
    double* values;
    int64_t* counts;
  };
  struct Sum {
    Statistics statistics;
    int64_t numel = 0;
    int64_t bytes = 0;
  };
  struct Shared {
    Slots<Sum, kThreads> sums;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int busy = a.rows < kThreads ? static_cast<int>(a.rows) : kThreads;
    block.each([&](int thread) {
      Sum sum;
      PYPARAM_UNROLL(1)
      for (int64_t t = thread; t < a.rows; t += kThreads) {
        const int64_t* counts = a.counts + t * kCountColumns;
        sum.statistics = combine(sum.statistics, read_row(a.values + t * kValueColumns, counts));
        sum.numel += counts[kNumel];
        sum.bytes += counts[kBytes];
      }
      shared.sums[thread] = sum;
    });
    block.combine(shared.sums, busy, [](const Sum& x, const Sum& y) {
      return Sum{combine(x.statistics, y.statistics), x.numel + y.numel, x.bytes + y.bytes};
    });
    block.last([&](int thread) {
      if (thread > 0) return;
      const Sum& all = shared.sums[0];
      write_row(all.statistics, all.numel, all.bytes, a.values + a.rows * kValueColumns,
                a.counts + a.rows * kCountColumns);
    });
  }
};

// The launches. `launch` is called as launch(Body{}, blocks, arguments); `parts` has one a chunk,
// `values` and `counts` a row a tensor and one more.
template <int kThreads = 256, typename Launch>
void launch_measure(const Launch& launch, const TableView& table, Statistics* parts, double* values,
                    int64_t* counts) {
  launch(MeasureChunk<kThreads>{}, table.chunk_count, {table, parts});
  launch(MeasureRow<kThreads / 2>{}, table.tensor_count, {table, parts, values, counts});
  launch(MeasureTotal<kThreads>{}, 1, {table.tensor_count, values, counts});
}

}  // namespace pyparam
