// total_norm and clip_grad_norm_ on a device: a block a chunk, one for the total, and for clipping
// a block a chunk that scales by it. No torch header.
#pragma once

#include <type_traits>

#include "kernels/cuda/values.h"
#include "kernels/math.h"
#include "kernels/norm.h"

namespace pyparam {

// A partial result covers this many elements.
constexpr int64_t kNormChunk = int64_t{1} << 16;

// |x| of an element, complex or not.
PYPARAM_DEVICE double element_magnitude(const Values& values, int32_t first) {
  const double re = read_value(values.part, values.at(first));
  if (values.parts == 1) return bit_cast<double>(magnitude_bits(re));
  return hypot(re, read_value(values.part, values.at(first + 1)));
}

// Of some elements: what is not zero, the sum, and the extremes, of their magnitudes. NaN where
// there is one.
struct MagnitudeSums {
  double count = 0;
  double sum = 0;
  double least = infinity();
  double largest = 0;

  PYPARAM_DEVICE void take(double magnitude) {
    count += magnitude != 0 ? 1 : 0;
    sum += magnitude;
    least = magnitude < least || is_nan(magnitude) ? magnitude : least;
    largest = magnitude > largest || is_nan(magnitude) ? magnitude : largest;
  }
};
PYPARAM_DEVICE MagnitudeSums combine(const MagnitudeSums& a, const MagnitudeSums& b) {
  MagnitudeSums out;
  out.count = a.count + b.count;
  out.sum = a.sum + b.sum;
  out.least = b.least < a.least || is_nan(b.least) ? b.least : a.least;
  out.largest = b.largest > a.largest || is_nan(b.largest) ? b.largest : a.largest;
  return out;
}

// Sums of squares of one chunk: order 2.
template <int kThreadCount>
struct SquaresChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 3;
  struct Arguments {
    TableView table;
    NormPart* parts;  // one a chunk
  };
  struct Shared {
    Slots<double, kThreads> sums;
    ByteTable table;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const Values values = values_of(a.table, a.table.chunks[block.index()]);
    const int busy = threads_with_groups<kThreads>(values);
    block.each([&](int thread) { fill_table<kThreads>(values.part, thread, shared.table); });
    block.each([&](int thread) {
      double sum = 0;
      with_reader(values.part, shared.table, [&](const auto& read) {
        each_group<kThreads>(read, values, thread, [&](const auto& x, int n) {
          PYPARAM_UNROLL(16)
          for (int i = 0; i < static_cast<int>(sizeof(x) / sizeof(x[0])); ++i) {
            const double value = i < n ? static_cast<double>(x[i]) : 0.0;
            sum += value * value;
          }
        });
      });
      shared.sums[thread] = sum;
    });
    block.combine(shared.sums, busy, [](double x, double y) { return x + y; });
    NormPart part{block.first(shared.sums), 1};
    if (values.part == Dtype::kDouble && !is_safe_square(part.sum)) {
      // Squares left the range: the largest magnitude first, and then the squares by its scale.
      block.each([&](int thread) {
        double largest = 0;
        PYPARAM_UNROLL(1)
        for (int32_t i = thread; i < values.length; i += kThreads) {
          const double x = bit_cast<double>(magnitude_bits(read_value(values.part, values.at(i))));
          largest = x > largest || is_nan(x) ? x : largest;
        }
        shared.sums[thread] = largest;
      });
      block.combine(shared.sums, kThreads,
                    [](double x, double y) { return y > x || is_nan(y) ? y : x; });
      const double largest = block.first(shared.sums);
      part = {largest, 1};
      if (largest > 0 && largest < infinity()) {
        const auto exponent = static_cast<int>(scaling_exponent(largest));
        const double scale = power_of_two(-exponent);
        block.each([&](int thread) {
          double squares = 0;
          PYPARAM_UNROLL(1)
          for (int32_t i = thread; i < values.length; i += kThreads) {
            const double x = read_value(values.part, values.at(i)) * scale;
            squares += x * x;
          }
          shared.sums[thread] = squares;
        });
        block.combine(shared.sums, kThreads, [](double x, double y) { return x + y; });
        part = {0, power_of_two(exponent)};
        block.last([&](int thread) {
          if (thread == 0) part.sum = shared.sums[0];
        });
      }
    }
    block.last([&](int thread) {
      if (thread == 0) a.parts[block.index()] = part;
    });
  }
};

// One chunk, for the other orders.
template <int kThreadCount>
struct PowersChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 2;
  struct Arguments {
    TableView table;
    NormPart* parts;
    double p;
  };
  struct Shared {
    Slots<MagnitudeSums, kThreads> sums;
    ByteTable table;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const Values values = values_of(a.table, a.table.chunks[block.index()]);
    block.each([&](int thread) { fill_table<kThreads>(values.part, thread, shared.table); });
    block.each([&](int thread) {
      MagnitudeSums sums;
      if (values.parts == 1) {
        with_reader(values.part, shared.table, [&](const auto& read) {
          each_group<kThreads>(read, values, thread, [&](const auto& x, int n) {
            PYPARAM_UNROLL(16)
            for (int i = 0; i < static_cast<int>(sizeof(x) / sizeof(x[0])); ++i) {
              if (i < n) sums.take(bit_cast<double>(magnitude_bits(static_cast<double>(x[i]))));
            }
          });
        });
      } else {
        PYPARAM_UNROLL(1)
        for (int32_t i = 2 * thread; i < values.length; i += 2 * kThreads)
          sums.take(element_magnitude(values, i));
      }
      shared.sums[thread] = sums;
    });
    block.combine(shared.sums, kThreads,
                  [](const MagnitudeSums& x, const MagnitudeSums& y) { return combine(x, y); });
    const MagnitudeSums all = block.first(shared.sums);
    const double p = a.p;
    const double largest = all.largest;
    NormPart part;
    if (p == 0) {
      part.sum = all.count;
    } else if (p == 1) {
      part.sum = all.sum;
    } else if (p == infinity()) {
      part.sum = largest;
    } else if (p == -infinity()) {
      part.sum = all.least;
    } else if (!(largest > 0 && largest < infinity())) {
      part.sum = largest;
    } else {
      block.each([&](int thread) {
        MagnitudeSums sums;
        PYPARAM_UNROLL(1)
        for (int32_t i = thread * values.parts; i < values.length; i += kThreads * values.parts)
          sums.sum += pow(element_magnitude(values, i) / largest, p);
        shared.sums[thread] = sums;
      });
      block.combine(shared.sums, kThreads,
                    [](const MagnitudeSums& x, const MagnitudeSums& y) { return combine(x, y); });
      part.scale = largest;
      block.last([&](int thread) {
        if (thread == 0) part.sum = shared.sums[0].sum;
      });
    }
    block.last([&](int thread) {
      if (thread == 0) a.parts[block.index()] = part;
    });
  }
};

// The norm, from the chunks. One block. With `of_norms`, order 0 counts the tensors that are not
// all zero.
template <int kThreadCount>
struct NormTotal {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 1;
  struct Arguments {
    TableView table;
    const NormPart* parts;
    double p;
    bool of_norms;
    bool wide;  // whether the norm is a float64, else a float32
    char* norm;
  };
  struct Shared {
    Slots<NormPart, kThreads> parts;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const double p = a.p;
    const bool counts_tensors = p == 0 && a.of_norms;
    const int64_t chunks = a.table.chunk_count;
    const int64_t items = counts_tensors ? a.table.tensor_count : chunks;
    const int busy = items < kThreads ? static_cast<int>(items) : kThreads;
    block.each([&](int thread) {
      NormPart sum;
      if (counts_tensors) {
        PYPARAM_UNROLL(1)
        for (int64_t t = thread; t < items; t += kThreads) {
          bool any = false;
          const int64_t end = a.table.tensors[t + 1].first_chunk;
          PYPARAM_UNROLL(1)
          for (int64_t c = a.table.tensors[t].first_chunk; c < end; ++c)
            any = any || a.parts[c].sum != 0;
          sum.sum += any ? 1 : 0;
        }
      } else {
        if (thread < busy) sum = a.parts[thread];
        // A few at a time, so that their loads overlap.
        constexpr int kInFlight = 4;
        PYPARAM_UNROLL(1)
        for (int64_t c = thread + kThreads; c < items; c += kInFlight * kThreads) {
          NormPart parts[kInFlight];
          PYPARAM_UNROLL(4)
          for (int u = 0; u < kInFlight; ++u) {
            if (c + u * kThreads < items) parts[u] = a.parts[c + u * kThreads];
          }
          PYPARAM_UNROLL(4)
          for (int u = 0; u < kInFlight; ++u) {
            if (c + u * kThreads < items) sum = combine_norms(sum, parts[u], p);
          }
        }
      }
      shared.parts[thread] = sum;
    });
    block.combine(shared.parts, busy,
                  [p](const NormPart& x, const NormPart& y) { return combine_norms(x, y, p); });
    block.last([&](int thread) {
      if (thread > 0) return;
      const double norm =
          chunks == 0 ? norm_of_nothing(p, a.table.tensor_count > 0) : norm_of(shared.parts[0], p);
      if (a.wide) {
        *reinterpret_cast<double*>(a.norm) = norm;
      } else {
        *reinterpret_cast<float*>(a.norm) = static_cast<float>(norm);
      }
    });
  }
};

// One number of 16 bytes, scaled.
template <typename Format>
struct ScaleAs {
  using storage = typename Format::storage;
  double by;
  PYPARAM_DEVICE storage operator()(storage stored) const {
    if constexpr (sizeof(storage) == 8) return Format::stored(Format::value(stored) * by);
    return Format::stored(static_cast<float>(Format::value(stored)) * static_cast<float>(by));
  }
};

// Scales one chunk by what clips the norm, in place.
template <int kThreadCount>
struct ScaleChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 3;
  struct Arguments {
    TableView table;
    const char* norm;
    bool wide;
    double max_norm;
  };
  using Shared = NoShared;

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared&) {
    const double by =
        a.wide ? clip_coefficient<double>(*reinterpret_cast<const double*>(a.norm), a.max_norm)
               : clip_coefficient<float>(*reinterpret_cast<const float*>(a.norm), a.max_norm);
    if (by == 1) return;  // would change nothing
    const Values values = values_of(a.table, a.table.chunks[block.index()]);
    block.last([&](int thread) {
      switch (values.part) {
        case Dtype::kFloat:
          return scale<ScaleAs<Float32>>({by}, values, thread);
        case Dtype::kHalf:
          return scale<ScaleAs<Half>>({by}, values, thread);
        case Dtype::kBFloat16:
          return scale<ScaleAs<BFloat16>>({by}, values, thread);
        default:
          return scale<ScaleAs<Float64>>({by}, values, thread);
      }
    });
  }

  template <typename Scale>
  static PYPARAM_DEVICE void scale(const Scale& scaled, const Values& values, int thread) {
    using Stored = typename Scale::storage;
    constexpr int kGroup = kVectorBytes / static_cast<int>(sizeof(Stored));
    const auto one = [&](int32_t i) {
      char* at = const_cast<char*>(values.at(i));
      write_as<Stored>(at, scaled(read_as<Stored>(at)));
    };
    int32_t head = values.length;  // values before and ...
    int32_t tail = values.length;  // ... after the aligned vectors
    const char* from = values.at(0);
    const bool whole_values = reinterpret_cast<uintptr_t>(from) % sizeof(Stored) == 0;
    if (values.dense() && whole_values) {
      const auto before = static_cast<int32_t>(bytes_to_vector(from) / sizeof(Stored));
      head = before < values.length ? before : values.length;
      tail = head + (values.length - head) / kGroup * kGroup;
      const int32_t vectors = (tail - head) / kGroup;
      char* at = const_cast<char*>(from) + static_cast<int64_t>(head) * sizeof(Stored);
      const auto all_of = [&](const Vector16& v) {
        Vector16 out{};
        PYPARAM_UNROLL(16)
        for (int i = 0; i < kGroup; ++i)
          put_element(out.word, i, scaled(element_of<Stored>(v.word, i)));
        return out;
      };
      constexpr int kInFlight = 4;
      int32_t g = thread;
      PYPARAM_UNROLL(1)
      for (; g + (kInFlight - 1) * kThreads < vectors; g += kInFlight * kThreads) {
        Vector16 v[kInFlight];
        PYPARAM_UNROLL(4)
        for (int u = 0; u < kInFlight; ++u) v[u] = load_vector(at + 16ll * (g + u * kThreads));
        PYPARAM_UNROLL(4)
        for (int u = 0; u < kInFlight; ++u)
          store_vector(at + 16ll * (g + u * kThreads), all_of(v[u]));
      }
      PYPARAM_UNROLL(1)
      for (; g < vectors; g += kThreads)
        store_vector(at + 16ll * g, all_of(load_vector(at + 16ll * g)));
    }
    PYPARAM_UNROLL(1)
    for (int32_t i = thread; i < head; i += kThreads) one(i);
    PYPARAM_UNROLL(1)
    for (int32_t i = tail + thread; i < values.length; i += kThreads) one(i);
  }
};

// The launches. `parts` has one a chunk; `norm` is a float64 where `wide`, else a float32.
template <int kThreads = 256, typename Launch>
void launch_norm(const Launch& launch, const TableView& table, double p, bool of_norms,
                 NormPart* parts, bool wide, char* norm) {
  if (p == 2) {
    launch(SquaresChunk<kThreads>{}, table.chunk_count, {table, parts});
  } else {
    launch(PowersChunk<kThreads>{}, table.chunk_count, {table, parts, p});
  }
  launch(NormTotal<kThreads * 2>{}, 1, {table, parts, p, of_norms, wide, norm});
}
template <int kThreads = 256, typename Launch>
void launch_scale(const Launch& launch, const TableView& table, const char* norm, bool wide,
                  double max_norm) {
  launch(ScaleChunk<kThreads>{}, table.chunk_count, {table, norm, wide, max_norm});
}

}  // namespace pyparam
