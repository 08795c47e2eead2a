// The bodies of fill_: one block a chunk, one for all tensors that are drawn by one map. Element i
// of a stream comes from Philox block i / 4 (float64: i / 2), whatever thread makes it.
#pragma once

#include "kernels/block.h"
#include "kernels/device_rows.h"
#include "kernels/draw.h"
#include "kernels/element.h"
#include "kernels/philox.h"
#include "kernels/vectors.h"

namespace pyparam::cuda {

constexpr int kFillThreads = 256;

// What a tensor is filled from, beside its TensorRow.
struct FillSource {
  uint64_t stream;
  int64_t offset;  // of its first element in the stream
  int32_t draw;
  int32_t first_extent;  // how its elements lie in the stream, where not one after the other
  int32_t extents;
  int32_t target;  // its row in the result
};

// Sums of x - centre and of its square.
struct FillSums {
  double first, second;
};

struct FillArguments {
  TableView table;
  const FillSource* sources;
  const ExtentRow* extents;  // those of the sources
  const random::Draw* draws;
  uint64_t seed;
  FillSums* partial;  // one a chunk; null where no moments are asked for
};

// The four (float64: two) values of one Philox block.
template <random::Map map>
PYPARAM_DEVICE void block_values(const random::Draw& draw, const philox::Words& w, float* out) {
  random::values_of_pair<map>(draw, w.w0, w.w1, out[0], out[1]);
  random::values_of_pair<map>(draw, w.w2, w.w3, out[2], out[3]);
}
template <random::Map map>
PYPARAM_DEVICE void block_values(const random::Draw& draw, const philox::Words& w, double* out) {
  random::values_of_pair<map>(draw, w.w0, w.w1, w.w2, w.w3, out[0], out[1]);
}

// One value of a block. Far in a tail a value costs so much that no thread should make two at once.
template <random::Map map>
PYPARAM_DEVICE float block_value(const random::Draw& draw, const philox::Words& w, uint32_t k,
                                 float) {
  if constexpr (map == random::Map::kFarTail) {
    return random::far_tail_value(draw, k == 0 ? w.w0 : k == 1 ? w.w1 : k == 2 ? w.w2 : w.w3);
  } else {
    float even, odd;
    random::values_of_pair<map>(draw, k < 2 ? w.w0 : w.w2, k < 2 ? w.w1 : w.w3, even, odd);
    return k % 2 == 0 ? even : odd;
  }
}
template <random::Map map>
PYPARAM_DEVICE double block_value(const random::Draw& draw, const philox::Words& w, uint32_t k,
                                  double) {
  if constexpr (map == random::Map::kFarTail) {
    return random::far_tail_value(draw, k == 0 ? w.w0 : w.w2, k == 0 ? w.w1 : w.w3);
  } else {
    double even, odd;
    random::values_of_pair<map>(draw, w.w0, w.w1, w.w2, w.w3, even, odd);
    return k == 0 ? even : odd;
  }
}

// How a drawn value is stored.
template <typename Format>
struct Drawn {
  using real = float;
  static PYPARAM_DEVICE typename Format::storage stored(float x) { return Format::stored(x); }
};
template <>
struct Drawn<Half> {
  using real = float;
  static PYPARAM_DEVICE uint16_t stored(float x) { return random::to_float16(x); }
};
template <>
struct Drawn<BFloat16> {
  using real = float;
  static PYPARAM_DEVICE uint16_t stored(float x) { return random::to_bfloat16(x); }
};
template <>
struct Drawn<Float64> {
  using real = double;
  static PYPARAM_DEVICE uint64_t stored(double x) { return Float64::stored(x); }
};

PYPARAM_DEVICE void add_value(FillSums& sums, double x, double centre) {
  const double distance = x - centre;
  sums.first += distance;
  sums.second += distance * distance;
}

// What fills one chunk.
struct FillTask {
  ChunkRow chunk;
  TensorRow row;
  FillSource source;
  uint64_t seed;
  const ExtentRow* memory;  // extents of the row
  const ExtentRow* whole;   // and of the source
  bool moments;
};

template <random::Map map, typename Format>
PYPARAM_DEVICE FillSums fill_elements(int thread, const FillTask& task, const random::Draw& draw) {
  using Real = typename Drawn<Format>::real;
  using Storage = typename Format::storage;
  constexpr int kPerBlock = static_cast<int>(16 / sizeof(Real));
  FillSums sums = {0.0, 0.0};
  for (int64_t i = thread; i < task.chunk.length; i += kFillThreads) {
    const int64_t index = task.chunk.begin + i;
    const auto element = static_cast<uint64_t>(task.source.offset +
                                               place_of(task.whole, task.source.extents, index));
    const Real value = block_value<map>(
        draw, philox::block_words(task.seed, task.source.stream, element / kPerBlock),
        static_cast<uint32_t>(element % kPerBlock), Real());
    const int64_t place = place_of(task.memory, task.row.extents, index);
    write_as<Storage>(reinterpret_cast<char*>(task.row.data) + place * sizeof(Storage),
                      Drawn<Format>::stored(value));
    if (task.moments) add_value(sums, static_cast<double>(value), draw.centre);
  }
  return sums;
}

// Dense in memory and in the stream: a vector's worth of elements at a time.
template <random::Map map, typename Format>
PYPARAM_DEVICE FillSums fill_dense(int thread, const FillTask& task, const random::Draw& draw) {
  using Real = typename Drawn<Format>::real;
  using Storage = typename Format::storage;
  constexpr int kPerBlock = static_cast<int>(16 / sizeof(Real));
  constexpr int kPerUnit = static_cast<int>(16 / sizeof(Storage));
  const int64_t first = task.source.offset + task.chunk.begin;  // in the stream
  const int64_t last = first + task.chunk.length;
  // Where element 0 of the stream would lie.
  const uint64_t origin =
      task.row.data + static_cast<uint64_t>(task.chunk.begin - first) * sizeof(Storage);
  const bool aligned = origin % 16 == 0;
  const bool whole_elements = origin % sizeof(Storage) == 0;
  FillSums sums = {0.0, 0.0};
  for (int64_t unit = first / kPerUnit + thread; unit * kPerUnit < last; unit += kFillThreads) {
    Real values[kPerUnit];
    PYPARAM_UNROLL(2)
    for (int b = 0; b < kPerUnit / kPerBlock; ++b) {
      const auto block = static_cast<uint64_t>(unit) * (kPerUnit / kPerBlock) + b;
      block_values<map>(draw, philox::block_words(task.seed, task.source.stream, block),
                        values + b * kPerBlock);
    }
    const int64_t begin = unit * kPerUnit;
    const bool full = begin >= first && begin + kPerUnit <= last;
    char* const to =
        reinterpret_cast<char*>(origin + static_cast<uint64_t>(begin) * sizeof(Storage));
    if (full && aligned) {
      Vector16 v;
      PYPARAM_UNROLL(8)
      for (int k = 0; k < kPerUnit; ++k) put_element(v.word, k, Drawn<Format>::stored(values[k]));
      store_vector(to, v);
    }
    PYPARAM_UNROLL(8)
    for (int k = 0; k < kPerUnit; ++k) {
      if (begin + k < first || begin + k >= last) continue;
      if (task.moments) add_value(sums, static_cast<double>(values[k]), draw.centre);
      if (full && aligned) continue;
      char* const place = to + k * static_cast<int64_t>(sizeof(Storage));
      const Storage stored = Drawn<Format>::stored(values[k]);
      if (whole_elements) {
        *reinterpret_cast<Storage*>(place) = stored;
      } else {
        write_as<Storage>(place, stored);
      }
    }
  }
  return sums;
}

template <random::Map map, typename Format>
PYPARAM_DEVICE FillSums fill_chunk(int thread, const FillTask& task, const random::Draw& draw) {
  if constexpr (map != random::Map::kFarTail) {
    if (task.row.extents == 0 && task.source.extents == 0)
      return fill_dense<map, Format>(thread, task, draw);
  }
  return fill_elements<map, Format>(thread, task, draw);
}

template <random::Map map>
struct FillBody {
  static constexpr int kThreads = kFillThreads;
  // Normals and the inverses of distribution functions take up to 128 registers; with fewer they
  // spill, around the call of place_of if nowhere else.
  static constexpr int kBlocks = map == random::Map::kUniform ? 0 : 2;
  using Arguments = FillArguments;
  struct Shared {
    Slots<FillSums, kThreads> sums;
  };

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    FillTask task;
    task.chunk = a.table.chunks[block.index()];
    task.row = a.table.tensors[task.chunk.tensor];
    task.source = a.sources[task.chunk.tensor];
    task.seed = a.seed;
    task.memory = a.table.extents + task.row.first_extent;
    task.whole = a.extents + task.source.first_extent;
    task.moments = a.partial != nullptr;
    const random::Draw draw = a.draws[task.source.draw];  // no store can be thought to change it
    typename Block::template Local<FillSums> sums;
    block.each([&](int thread) {
      switch (static_cast<Dtype>(task.row.dtype)) {
        case Dtype::kFloat:
          sums[thread] = fill_chunk<map, Float32>(thread, task, draw);
          break;
        case Dtype::kDouble:
          sums[thread] = fill_chunk<map, Float64>(thread, task, draw);
          break;
        case Dtype::kHalf:
          sums[thread] = fill_chunk<map, Half>(thread, task, draw);
          break;
        default:
          sums[thread] = fill_chunk<map, BFloat16>(thread, task, draw);
          break;
      }
    });
    if (!task.moments) return;
    block.reduce(sums, shared.sums, [](const FillSums& x, const FillSums& y) {
      return FillSums{x.first + y.first, x.second + y.second};
    });
    block.last([&](int thread) {
      if (thread == 0) a.partial[block.index()] = shared.sums[0];
    });
  }
};

// Mean and standard deviation of each tensor from the sums of its chunks: one block a tensor.
struct FillMomentsArguments {
  TableView table;
  const FillSource* sources;
  const random::Draw* draws;
  const FillSums* partial;
  double* result;  // (mean, standard deviation) at each source's target
};

struct FillMoments {
  static constexpr int kThreads = 64;
  using Arguments = FillMomentsArguments;
  struct Shared {
    Slots<FillSums, kThreads> sums;
  };

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const int64_t tensor = block.index();
    const int64_t first = a.table.tensors[tensor].first_chunk;
    const int64_t last = a.table.tensors[tensor + 1].first_chunk;
    const FillSource source = a.sources[tensor];
    typename Block::template Local<FillSums> sums;
    block.each([&](int thread) {
      FillSums sum = {0.0, 0.0};
      for (int64_t c = first + thread; c < last; c += kThreads) {
        sum.first += a.partial[c].first;
        sum.second += a.partial[c].second;
      }
      sums[thread] = sum;
    });
    block.reduce(sums, shared.sums, [](const FillSums& x, const FillSums& y) {
      return FillSums{x.first + y.first, x.second + y.second};
    });
    block.last([&](int thread) {
      if (thread != 0 || first == last) return;
      random::moments_of(shared.sums[0].first, shared.sums[0].second, a.table.tensors[tensor].numel,
                         a.draws[source.draw].centre,
                         a.result + 2 * static_cast<int64_t>(source.target));
    });
  }
};

// One value in every element of every tensor, of any dtype: as sixteen bytes of its pattern.
struct FillPattern {
  Vector16 bytes;
  int64_t size;  // of an element: 1, 2, 4, 8 or 16
};

struct FillConstantArguments {
  TableView table;
  const int32_t* pattern_of;
  const FillPattern* patterns;
};

struct FillConstant {
  static constexpr int kThreads = kFillThreads;
  using Arguments = FillConstantArguments;
  using Shared = NoShared;

  static PYPARAM_DEVICE void put(char* to, const FillPattern& pattern) {
    const uint32_t* w = pattern.bytes.word;
    switch (pattern.size) {
      case 1:
        return write_as<uint8_t>(to, static_cast<uint8_t>(w[0]));
      case 2:
        return write_as<uint16_t>(to, static_cast<uint16_t>(w[0]));
      case 4:
        return write_as<uint32_t>(to, w[0]);
      case 8:
        return write_as<uint64_t>(to, static_cast<uint64_t>(w[1]) << 32 | w[0]);
      default:
        write_as<uint64_t>(to, static_cast<uint64_t>(w[1]) << 32 | w[0]);
        return write_as<uint64_t>(to + 8, static_cast<uint64_t>(w[3]) << 32 | w[2]);
    }
  }

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared&) {
    const ChunkRow chunk = a.table.chunks[block.index()];
    const TensorRow row = a.table.tensors[chunk.tensor];
    const FillPattern pattern = a.patterns[a.pattern_of[chunk.tensor]];
    const ExtentRow* const extents = a.table.extents + row.first_extent;
    char* const tensor = reinterpret_cast<char*>(row.data);
    block.last([&](int thread) {
      // Vectors from the first multiple of 16 on, where that is between two elements.
      int64_t head = chunk.length, vectors = 0;
      char* const dense = tensor + chunk.begin * pattern.size;
      if (row.extents == 0 && bytes_to_vector(dense) % pattern.size == 0) {
        const int64_t lead = bytes_to_vector(dense) / pattern.size;
        head = lead < chunk.length ? lead : chunk.length;
        vectors = (chunk.length - head) * pattern.size / 16;
      }
      for (int64_t v = thread; v < vectors; v += kThreads)
        store_vector(dense + head * pattern.size + 16 * v, pattern.bytes);
      const int64_t covered = vectors * 16 / pattern.size;
      for (int64_t i = thread; i < chunk.length - covered; i += kThreads) {
        const int64_t index = chunk.begin + (i < head ? i : i + covered);
        put(tensor + place_of(extents, row.extents, index) * pattern.size, pattern);
      }
    });
  }
};

}  // namespace pyparam::cuda
