// Histograms by bits on a device. Shared memory holds the counts of a window of 32 octaves, which
// is all that a tensor's values reach as a rule; those below it are counted by another pass. No
// torch header.
//
// Tensors are cut into segments, a block each. A tensor of one segment writes its sparse row
// itself; those of several add theirs to a dense table of the tensor, of which there are no more
// than segments of full length. Rows are counted first, then written once their places are known.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/values.h"
#include "kernels/histogram.h"
#include "kernels/math.h"
#include "kernels/measure.h"

namespace pyparam {

struct BinSegment {
  int64_t tensor;
  int64_t begin;   // elements
  int64_t length;  // elements
  int64_t dense;   // the tensor's dense table; 0 where it has none, since that is the total's
};

struct BinPlan {
  std::vector<BinSegment> segments;
  std::vector<int64_t> dense_rows;  // the row of each dense table, the total's first
};

// Few segments and so few dense tables, whatever the number of elements; but small ones only where
// tensors are small.
inline BinPlan plan_bins(const std::vector<int64_t>& numels, int64_t shortest) {
  constexpr int64_t kSegments = 512;
  constexpr int64_t kLongest = int64_t{1} << 29;
  int64_t total = 0;
  for (const int64_t numel : numels) total += numel;
  int64_t length = (total / kSegments + 65535) / 65536 * 65536;
  if (length < shortest) length = shortest;
  if (length > kLongest) length = kLongest;
  BinPlan plan;
  plan.dense_rows.push_back(static_cast<int64_t>(numels.size()));
  for (size_t t = 0; t < numels.size(); ++t) {
    const auto tensor = static_cast<int64_t>(t);
    int64_t dense = 0;
    if (numels[t] > length) {
      dense = static_cast<int64_t>(plan.dense_rows.size());
      plan.dense_rows.push_back(tensor);
    }
    for (int64_t begin = 0; begin < numels[t]; begin += length) {
      const int64_t rest = numels[t] - begin;
      plan.segments.push_back({tensor, begin, rest < length ? rest : length, dense});
    }
  }
  return plan;
}

// Where the results are, or go to.
struct BinColumns {
  int64_t* below;    // [rows + 1, kLimits], from zero
  int64_t* dense;    // [dense tables, kBins], from zero
  int64_t* entries;  // [rows + 1], from zero
  int64_t* offsets;  // [rows + 2]
  int32_t* bins;     // [offsets[rows + 1]]
  int64_t* counts;
};

// Replaces each slot by the sum of those before it; returns the sum of all in `all`.
template <typename Block, typename T, int kThreads>
PYPARAM_DEVICE void exclusive_sums(const Block& block, Slots<T, kThreads>& slots,
                                   Slots<T, kThreads>& spare,
                                   typename Block::template Local<T>& all) {
  typename Block::template Local<T> own;
  block.each([&](int thread) { own[thread] = slots[thread]; });
  bool in_spare = false;
  PYPARAM_UNROLL(1)
  for (int step = 1; step < kThreads; step *= 2) {
    Slots<T, kThreads>& from = in_spare ? spare : slots;
    Slots<T, kThreads>& to = in_spare ? slots : spare;
    block.each([&](int thread) {
      to[thread] = thread < step ? from[thread] : from[thread] + from[thread - step];
    });
    in_spare = !in_spare;
  }
  Slots<T, kThreads>& sums = in_spare ? spare : slots;
  typename Block::template Local<T> before;
  block.each([&](int thread) {
    all[thread] = sums[kThreads - 1];
    before[thread] = sums[thread] - own[thread];
  });
  block.each([&](int thread) { slots[thread] = before[thread]; });
}

constexpr int kWindow = 1 << 12;  // magnitudes, in steps of a bin: 32 octaves
constexpr uint32_t kLargestFloat = 0x7f7fffffu;

// Limit i, where a device has no table of them.
template <int... kIndices>
PYPARAM_DEVICE uint32_t limit_of(int i, std::integer_sequence<int, kIndices...>) {
  uint32_t limit = 0;
  ((limit =
        i == kIndices ? std::integral_constant<uint32_t, rounding_limit(kIndices)>::value : limit),
   ...);
  return limit;
}
PYPARAM_DEVICE uint32_t limit_of(int i) {
  return limit_of(i, std::make_integer_sequence<int, kLimits>());
}

// One segment. Counts, or writes the row.
template <int kThreadCount>
struct BinSegments {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 2;
  static constexpr int kOwn = kWindow / kThreads;  // magnitudes of the window to a thread
  struct Arguments {
    TableView table;
    const BinSegment* segments;
    const double* values;  // rows as measure wrote them
    BinColumns columns;
    bool writes;
  };
  struct Shared {
    Slots<uint32_t, 2 * kWindow> window;  // magnitudes of positives, then of negatives
    Slots<int32_t, kThreads> slots;
    Slots<int32_t, kThreads> spare;
    ByteTable table;
    uint32_t limits[kLimits];
    uint32_t within[kLimits];  // values in a limit's bin, below the limit
    uint32_t below[kLimits];   // values in bins below the limit's
    uint32_t zeros, tiny, tiny_negative, beyond;
  };
  // The values that no window holds, counted by the first pass alone.
  struct Outside {
    uint32_t zeros = 0;
    uint32_t tiny = 0;           // in the bin of zero, ...
    uint32_t tiny_negative = 0;  // ... and in the one below
    uint32_t beyond = 0;         // rounded to an infinity on the way to float32
    int32_t missed = 0;          // the largest magnitude below the window
  };

  template <typename Block, typename Value>
  static PYPARAM_DEVICE void take(const Block& block, Shared& shared, Value value, int lowest,
                                  int end, bool first_pass, Outside& outside) {
    const uint32_t bits = bit_cast<uint32_t>(static_cast<float>(value));
    uint32_t magnitude = bits & 0x7fffffffu;
    bool true_value = true;
    if (magnitude > kLargestFloat) {
      if (sizeof(Value) == 4 || !is_finite(value)) return;
      magnitude = kLargestFloat;
      true_value = false;
      outside.beyond += 1;
    }
    const auto bin = static_cast<int32_t>(magnitude >> kBinShift);
    if (bin == 0) {
      if (magnitude == 0) {
        outside.zeros += 1;
        return;
      }
      outside.tiny += bits >> 31 ? 0 : 1;
      outside.tiny_negative += bits >> 31;
    } else if (bin >= lowest && bin < end) {
      block.add(shared.window[bin - lowest + (bits >> 31 ? kWindow : 0)], 1u);
    } else if (bin < lowest) {
      outside.missed = bin > outside.missed ? bin : outside.missed;
    }
    if (!first_pass || !may_be_divided(magnitude) || !true_value) return;
    PYPARAM_UNROLL(1)
    for (int i = 0; i < kLimits; ++i) {
      const uint32_t limit = shared.limits[i];
      if (limit >> kBinShift == magnitude >> kBinShift && magnitude < limit)
        block.add(shared.within[i], 1u);
    }
  }

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const BinSegment segment = a.segments[block.index()];
    if (a.writes && segment.dense != 0) return;
    const TensorRow row = a.table.tensors[segment.tensor];
    const Values values = values_of(a.table, row, segment.begin, segment.length);
    const float largest =
        static_cast<float>(a.values[segment.tensor * kValueColumns + kMaxAbs]);  // NaN without any
    const uint32_t largest_bits = magnitude_bits(largest);
    int end = static_cast<int>((largest_bits > kLargestFloat ? kLargestFloat : largest_bits) >>
                               kBinShift) +
              1;
    int64_t next_negative = 0;  // entries
    int64_t end_positive = 0;
    if (a.writes) {
      next_negative = a.columns.offsets[segment.tensor];
      end_positive = a.columns.offsets[segment.tensor + 1];
    }
    int64_t entries = 0;
    block.each([&](int thread) {
      fill_table<kThreads>(values.part, thread, shared.table);
      if (thread < kLimits) {
        shared.limits[thread] = limit_of(thread);
        shared.within[thread] = shared.below[thread] = 0;
      }
      if (thread == 0) shared.zeros = shared.tiny = shared.tiny_negative = shared.beyond = 0;
    });
    bool first_pass = true;
    PYPARAM_UNROLL(1)
    while (true) {
      const int lowest = end > kWindow + 1 ? end - kWindow : 1;
      block.each([&](int thread) {
        PYPARAM_UNROLL(1)
        for (int i = thread; i < 2 * kWindow; i += kThreads) shared.window[i] = 0;
      });
      block.each([&](int thread) {
        Outside outside;
        with_reader(values.part, shared.table, [&](const auto& read) {
          each_group<kThreads>(read, values, thread, [&](const auto& x, int n) {
            PYPARAM_UNROLL(16)
            for (int i = 0; i < static_cast<int>(sizeof(x) / sizeof(x[0])); ++i) {
              if (i < n) take(block, shared, x[i], lowest, end, first_pass, outside);
            }
          });
        });
        shared.slots[thread] = outside.missed;
        if (!first_pass) return;
        if (outside.zeros > 0) block.add(shared.zeros, outside.zeros);
        if (outside.tiny > 0) block.add(shared.tiny, outside.tiny);
        if (outside.tiny_negative > 0) block.add(shared.tiny_negative, outside.tiny_negative);
        if (outside.beyond > 0) block.add(shared.beyond, outside.beyond);
      });
      block.combine(shared.slots, kThreads, [](int32_t x, int32_t y) { return x > y ? x : y; });
      const int32_t missed = block.first(shared.slots);
      take_window(block, a, segment, shared, lowest, next_negative, end_positive, entries);
      first_pass = false;
      if (missed == 0) break;
      end = missed + 1;
    }
    finish(block, a, segment, shared, next_negative, entries);
  }

  // Takes the counts out of the window: from the largest magnitude down for negatives, since bins
  // ascend, and up for positives.
  template <typename Block>
  static PYPARAM_DEVICE void take_window(const Block& block, const Arguments& a,
                                         const BinSegment& segment, Shared& shared, int lowest,
                                         int64_t& next_negative, int64_t& end_positive,
                                         int64_t& entries) {
    PYPARAM_UNROLL(1)
    for (int negative = 0; negative < 2; ++negative) {
      const auto cell_of = [&](int thread, int i) {
        const int cell = thread * kOwn + i;
        return negative != 0 ? kWindow + (kWindow - 1 - cell) : cell;
      };
      const auto bin_at = [&](int cell) {
        return negative != 0 ? kZeroBin - 1 - (lowest + cell - kWindow) : kZeroBin + lowest + cell;
      };
      block.each([&](int thread) {
        int32_t filled = 0;
        PYPARAM_UNROLL(1)
        for (int i = 0; i < kOwn; ++i) filled += shared.window[cell_of(thread, i)] != 0;
        shared.slots[thread] = filled;
      });
      typename Block::template Local<int32_t> all;
      exclusive_sums(block, shared.slots, shared.spare, all);
      entries += all[0];
      if (a.writes && negative == 0) end_positive -= all[0];
      const int64_t begin = negative != 0 ? next_negative : end_positive;
      block.each([&](int thread) {
        int64_t to = begin + shared.slots[thread];
        PYPARAM_UNROLL(1)
        for (int i = 0; i < kOwn; ++i) {
          const int cell = cell_of(thread, i);
          const uint32_t count = shared.window[cell];
          if (count == 0) continue;
          const int bin = bin_at(cell);
          if (a.writes) {
            a.columns.bins[to] = bin;
            a.columns.counts[to] = count;
            ++to;
            continue;
          }
          block.add(a.columns.dense[bin], static_cast<int64_t>(count));
          if (segment.dense != 0)
            block.add(a.columns.dense[segment.dense * kBins + bin], static_cast<int64_t>(count));
          const int magnitude = bin >= kZeroBin ? bin - kZeroBin : kZeroBin - 1 - bin;
          PYPARAM_UNROLL(1)
          for (int l = 0; l < kLimits; ++l) {
            if (magnitude < static_cast<int>(shared.limits[l] >> kBinShift))
              block.add(shared.below[l], count);
          }
        }
      });
      if (a.writes && negative != 0) next_negative += all[0];
    }
  }

  // The two bins about zero, and what lies below the limits.
  template <typename Block>
  static PYPARAM_DEVICE void finish(const Block& block, const Arguments& a,
                                    const BinSegment& segment, Shared& shared,
                                    int64_t next_negative, int64_t entries) {
    block.last([&](int thread) {
      if (thread == 0) {
        const int64_t counts[2] = {shared.tiny_negative,
                                   static_cast<int64_t>(shared.zeros) + shared.tiny};
        PYPARAM_UNROLL(1)
        for (int i = 0; i < 2; ++i) {
          if (counts[i] == 0) continue;
          const int bin = kZeroBin - 1 + i;
          ++entries;
          if (a.writes) {
            a.columns.bins[next_negative] = bin;
            a.columns.counts[next_negative] = counts[i];
            ++next_negative;
            continue;
          }
          block.add(a.columns.dense[bin], counts[i]);
          if (segment.dense != 0)
            block.add(a.columns.dense[segment.dense * kBins + bin], counts[i]);
        }
        if (!a.writes && segment.dense == 0) a.columns.entries[segment.tensor] = entries;
      }
      if (a.writes || thread >= kLimits) return;
      const uint32_t limit = shared.limits[thread];
      const uint32_t bin = limit >> kBinShift;
      int64_t below = static_cast<int64_t>(shared.within[thread]) + shared.below[thread];
      below += shared.zeros;
      if (bin > 0) below += static_cast<int64_t>(shared.tiny) + shared.tiny_negative;
      if (bin > kLargestFloat >> kBinShift) below -= shared.beyond;
      block.add(a.columns.below[segment.tensor * kLimits + thread], below);
      block.add(a.columns.below[a.table.tensor_count * kLimits + thread], below);
    });
  }
};

// One dense table. Counts its entries, or (kWrites) writes them.
template <int kThreadCount, bool kWrites>
struct BinDense {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 4;
  static constexpr int kOwn = 16;
  struct Arguments {
    const int64_t* rows;  // of each table
    BinColumns columns;
  };
  struct Shared {
    Slots<int32_t, kThreads> slots;
    Slots<int32_t, kThreads> spare;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int64_t* table = a.columns.dense + block.index() * kBins;
    const int64_t row = a.rows[block.index()];
    int64_t next = kWrites ? a.columns.offsets[row] : 0;
    PYPARAM_UNROLL(1)
    for (int tile = 0; tile < kBins; tile += kThreads * kOwn) {
      block.each([&](int thread) {
        int32_t filled = 0;
        PYPARAM_UNROLL(16)
        for (int i = 0; i < kOwn; ++i) filled += table[tile + thread * kOwn + i] != 0;
        shared.slots[thread] = filled;
      });
      typename Block::template Local<int32_t> all;
      exclusive_sums(block, shared.slots, shared.spare, all);
      if (kWrites) {
        block.each([&](int thread) {
          int64_t to = next + shared.slots[thread];
          PYPARAM_UNROLL(1)
          for (int i = 0; i < kOwn; ++i) {
            const int bin = tile + thread * kOwn + i;
            if (table[bin] == 0) continue;
            a.columns.bins[to] = bin;
            a.columns.counts[to] = table[bin];
            ++to;
          }
        });
      }
      next += all[0];
    }
    if (kWrites) return;
    block.last([&](int thread) {
      if (thread == 0) a.columns.entries[row] = next;
    });
  }
};

// Offsets from the numbers of entries. One block.
template <int kThreadCount>
struct BinOffsets {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 1;
  struct Arguments {
    int64_t rows;  // the total's among them
    BinColumns columns;
  };
  struct Shared {
    Slots<int64_t, kThreads> slots;
    Slots<int64_t, kThreads> spare;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int64_t each = (a.rows + kThreads - 1) / kThreads;
    const auto range = [&](int thread, int64_t& begin, int64_t& end) {
      begin = thread * each;
      end = begin + each < a.rows ? begin + each : a.rows;
    };
    block.each([&](int thread) {
      int64_t begin, end, sum = 0;
      range(thread, begin, end);
      PYPARAM_UNROLL(1)
      for (int64_t r = begin; r < end; ++r) sum += a.columns.entries[r];
      shared.slots[thread] = sum;
    });
    typename Block::template Local<int64_t> all;
    exclusive_sums(block, shared.slots, shared.spare, all);
    block.last([&](int thread) {
      int64_t begin, end, sum = shared.slots[thread];
      range(thread, begin, end);
      PYPARAM_UNROLL(1)
      for (int64_t r = begin; r < end; ++r) {
        a.columns.offsets[r] = sum;
        sum += a.columns.entries[r];
      }
      if (thread == kThreads - 1) a.columns.offsets[a.rows] = all[thread];
    });
  }
};

// The launches before the number of all entries can be read at offsets[rows + 1], and those after.
// `values` are measure's rows.
template <int kThreads = 256, typename Launch>
void launch_bin_counts(const Launch& launch, const TableView& table, const BinSegment* segments,
                       int64_t segment_count, const int64_t* dense_rows, int64_t dense_count,
                       const double* values, const BinColumns& columns) {
  launch(BinSegments<kThreads>{}, segment_count, {table, segments, values, columns, false});
  launch(BinDense<kThreads, false>{}, dense_count, {dense_rows, columns});
  launch(BinOffsets<kThreads>{}, 1, {table.tensor_count + 1, columns});
}
template <int kThreads = 256, typename Launch>
void launch_bin_rows(const Launch& launch, const TableView& table, const BinSegment* segments,
                     int64_t segment_count, const int64_t* dense_rows, int64_t dense_count,
                     const double* values, const BinColumns& columns) {
  launch(BinSegments<kThreads>{}, segment_count, {table, segments, values, columns, true});
  launch(BinDense<kThreads, true>{}, dense_count, {dense_rows, columns});
}

}  // namespace pyparam
