// The values of a chunk, as a block's threads read them: sixteen bytes at a time where memory order
// will do, one by one where not. A complex number is two values. No torch header.
//
// Thread t of n takes the groups t, t + n, t + 2 n ... of the chunk; a group is as many values as
// sixteen bytes hold. So what a thread adds up depends on neither address nor strides.
#pragma once

#include <cstdint>

#include "kernels/block.h"
#include "kernels/device_rows.h"
#include "kernels/dtypes.h"
#include "kernels/element.h"
#include "kernels/vectors.h"

namespace pyparam {

// Of a complex type, the type of its parts.
PYPARAM_FORMULA Dtype part_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kComplexHalf:
      return Dtype::kHalf;
    case Dtype::kComplexFloat:
      return Dtype::kFloat;
    case Dtype::kComplexDouble:
      return Dtype::kDouble;
    default:
      return dtype;
  }
}
PYPARAM_FORMULA bool is_complex(Dtype dtype) { return part_type(dtype) != dtype; }

// Bytes of a value. Types of one byte are read by way of a table.
PYPARAM_FORMULA int value_bytes(Dtype part) {
  switch (part) {
    case Dtype::kDouble:
    case Dtype::kInt64:
    case Dtype::kUInt64:
      return 8;
    case Dtype::kFloat:
    case Dtype::kInt32:
    case Dtype::kUInt32:
      return 4;
    case Dtype::kHalf:
    case Dtype::kBFloat16:
    case Dtype::kInt16:
    case Dtype::kUInt16:
      return 2;
    default:
      return 1;
  }
}
PYPARAM_FORMULA int64_t element_bytes(Dtype dtype) {
  return static_cast<int64_t>(value_bytes(part_type(dtype))) * (is_complex(dtype) ? 2 : 1);
}

// The smallest normal value of a type that widens to float32; the smallest normal float32 of one
// that has no subnormals.
PYPARAM_FORMULA float smallest_normal(Dtype part) {
  switch (part) {
    case Dtype::kHalf:
      return Half::smallest_normal();
    case Dtype::kFloat8e5m2:
      return Float8e5m2::smallest_normal();
    case Dtype::kFloat8e4m3fn:
      return Float8e4m3fn::smallest_normal();
    case Dtype::kFloat8e5m2fnuz:
      return Float8e5m2fnuz::smallest_normal();
    case Dtype::kFloat8e4m3fnuz:
      return Float8e4m3fnuz::smallest_normal();
    case Dtype::kFloat8e8m0fnu:
      return Float8e8m0fnu::smallest_normal();
    default:
      return BFloat16::smallest_normal();
  }
}

// What a byte stands for in a type of one byte.
PYPARAM_FORMULA float byte_value(Dtype part, uint8_t byte) {
  switch (part) {
    case Dtype::kFloat8e5m2:
      return Float8e5m2::value(byte);
    case Dtype::kFloat8e4m3fn:
      return Float8e4m3fn::value(byte);
    case Dtype::kFloat8e5m2fnuz:
      return Float8e5m2fnuz::value(byte);
    case Dtype::kFloat8e4m3fnuz:
      return Float8e4m3fnuz::value(byte);
    case Dtype::kFloat8e8m0fnu:
      return Float8e8m0fnu::value(byte);
    case Dtype::kBool:
      return byte != 0 ? 1.0f : 0.0f;
    case Dtype::kInt8:
      return static_cast<float>(static_cast<int8_t>(byte));
    default:
      return static_cast<float>(byte);
  }
}

// Reading stored values: as float32 where that is exact for the whole type, else as float64.
template <typename Format>
struct ReadAs {
  using storage = typename Format::storage;
  PYPARAM_DEVICE auto operator()(storage stored) const { return Format::value(stored); }
};
// Half::value; a device has an instruction for it.
struct ReadHalf {
  using storage = uint16_t;
  PYPARAM_DEVICE float operator()(uint16_t stored) const {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(stored));
    return value;
#else
    return Half::value(stored);
#endif
  }
};
template <typename Integer, typename Value>
struct ReadInteger {
  using storage = Integer;
  PYPARAM_DEVICE Value operator()(storage stored) const { return static_cast<Value>(stored); }
};
struct ReadByte {
  using storage = uint8_t;
  const float* table;
  PYPARAM_DEVICE float operator()(uint8_t stored) const { return table[stored]; }
};

// Vectors that a thread asks for before it uses the first: enough to keep memory busy where it is
// the limit, and one where arithmetic is, or for types that parameters seldom have.
template <typename Reader>
struct InFlight {
  static constexpr int kVectors = 1;
};
template <>
struct InFlight<ReadAs<Float32>> {
  static constexpr int kVectors = 4;
};
template <>
struct InFlight<ReadAs<Float64>> {
  static constexpr int kVectors = 4;
};
template <>
struct InFlight<ReadAs<BFloat16>> {
  static constexpr int kVectors = 2;
};
template <>
struct InFlight<ReadHalf> {
  static constexpr int kVectors = 2;
};

using ByteTable = Slots<float, 256>;

// For one phase: fills the table where the type needs one.
template <int kThreads>
PYPARAM_DEVICE void fill_table(Dtype part, int thread, ByteTable& table) {
  if (value_bytes(part) != 1) return;
  PYPARAM_UNROLL(1)
  for (int i = thread; i < 256; i += kThreads) table[i] = byte_value(part, static_cast<uint8_t>(i));
}

// Calls fn with the reader of a type. Integers of 16 and 32 bits only on demand: parameters hardly
// ever have them, and each reader is a kernel's whole loop once more.
template <bool kAllIntegers = true, typename Fn>
PYPARAM_DEVICE void with_reader(Dtype part, const ByteTable& table, const Fn& fn) {
  switch (part) {
    case Dtype::kFloat:
      return fn(ReadAs<Float32>{});
    case Dtype::kBFloat16:
      return fn(ReadAs<BFloat16>{});
    case Dtype::kHalf:
      return fn(ReadHalf{});
    case Dtype::kDouble:
      return fn(ReadAs<Float64>{});
    case Dtype::kInt16:
      if constexpr (kAllIntegers) fn(ReadInteger<int16_t, float>{});
      return;
    case Dtype::kUInt16:
      if constexpr (kAllIntegers) fn(ReadInteger<uint16_t, float>{});
      return;
    case Dtype::kInt32:
      if constexpr (kAllIntegers) fn(ReadInteger<int32_t, double>{});
      return;
    case Dtype::kUInt32:
      if constexpr (kAllIntegers) fn(ReadInteger<uint32_t, double>{});
      return;
    case Dtype::kInt64:
      return fn(ReadInteger<int64_t, double>{});
    case Dtype::kUInt64:
      return fn(ReadInteger<uint64_t, double>{});
    default:
      return fn(ReadByte{&table[0]});
  }
}

PYPARAM_FORMULA bool is_middling_integer(Dtype part) {
  return part == Dtype::kInt16 || part == Dtype::kUInt16 || part == Dtype::kInt32 ||
         part == Dtype::kUInt32;
}

// A value of any type, as float64.
PYPARAM_FORMULA double read_value(Dtype part, const char* from) {
  switch (part) {
    case Dtype::kFloat:
      return static_cast<double>(Float32::value(read_as<uint32_t>(from)));
    case Dtype::kBFloat16:
      return static_cast<double>(BFloat16::value(read_as<uint16_t>(from)));
    case Dtype::kHalf:
      return static_cast<double>(Half::value(read_as<uint16_t>(from)));
    case Dtype::kDouble:
      return Float64::value(read_as<uint64_t>(from));
    case Dtype::kInt16:
      return static_cast<double>(read_as<int16_t>(from));
    case Dtype::kUInt16:
      return static_cast<double>(read_as<uint16_t>(from));
    case Dtype::kInt32:
      return static_cast<double>(read_as<int32_t>(from));
    case Dtype::kUInt32:
      return static_cast<double>(read_as<uint32_t>(from));
    case Dtype::kInt64:
      return static_cast<double>(read_as<int64_t>(from));
    case Dtype::kUInt64:
      return static_cast<double>(read_as<uint64_t>(from));
    default:
      return static_cast<double>(byte_value(part, read_as<uint8_t>(from)));
  }
}

// A run of a tensor's values.
struct Values {
  const char* data;  // the tensor's first byte
  const ExtentRow* extents;
  int64_t begin;   // the run's first value
  int32_t length;  // values
  int32_t dims;    // 0: memory order is logical order
  int32_t parts;   // values in an element
  int32_t bytes;   // of a value
  Dtype part;

  PYPARAM_DEVICE bool dense() const { return dims == 0; }
  PYPARAM_DEVICE const char* at(int32_t i) const {
    const int64_t value = begin + i;
    if (dense()) return data + value * bytes;
    const int64_t place = place_of(extents, dims, value / parts);
    return data + (place * parts + value % parts) * bytes;
  }
};

PYPARAM_DEVICE Values values_of(const TableView& table, const TensorRow& row, int64_t begin,
                                int64_t length) {
  const auto dtype = static_cast<Dtype>(row.dtype);
  Values out;
  out.data = reinterpret_cast<const char*>(row.data);
  out.extents = table.extents + row.first_extent;
  out.parts = is_complex(dtype) ? 2 : 1;
  out.begin = begin * out.parts;
  out.length = static_cast<int32_t>(length * out.parts);
  out.dims = row.extents;
  out.part = part_type(dtype);
  out.bytes = value_bytes(out.part);
  return out;
}
PYPARAM_DEVICE Values values_of(const TableView& table, const ChunkRow& chunk) {
  return values_of(table, table.tensors[chunk.tensor], chunk.begin, chunk.length);
}

// The values of `Stored` in sixteen bytes.
template <typename Stored>
PYPARAM_DEVICE Stored stored_at(const Vector16& v, int i) {
  if constexpr (sizeof(Stored) == 8) {
    const uint64_t bits = static_cast<uint64_t>(v.word[2 * i + 1]) << 32 | v.word[2 * i];
    return static_cast<Stored>(bits);
  } else if constexpr (sizeof(Stored) == 4) {
    return static_cast<Stored>(v.word[i]);
  } else if constexpr (sizeof(Stored) == 2) {
    return static_cast<Stored>(static_cast<uint16_t>(v.word[i / 2] >> (16 * (i % 2))));
  } else {
    return static_cast<Stored>(static_cast<uint8_t>(v.word[i / 4] >> (8 * (i % 4))));
  }
}

// Calls take(values, n) for each group of this thread: an array of kGroup values, of which the
// first n count.
template <int kThreads, typename Reader, typename Take>
PYPARAM_DEVICE void each_group(const Reader& read, const Values& values, int thread,
                               const Take& take) {
  using Stored = typename Reader::storage;
  constexpr int kInFlight = InFlight<Reader>::kVectors;
  using Value = decltype(read(Stored()));
  constexpr int kGroup = kVectorBytes / static_cast<int>(sizeof(Stored));
  const auto groups = static_cast<int32_t>((values.length + kGroup - 1) / kGroup);
  int32_t g = thread;
  if (values.dense()) {
    const VectorRun run(values.at(0), static_cast<int64_t>(values.length) * values.bytes);
    const auto whole = static_cast<int32_t>(run.whole);
    const auto load = [&](int32_t index) {
      return run.shift == 0 ? run.template load<false>(index) : run.template load<true>(index);
    };
    const auto take_vector = [&](const Vector16& v) {
      Value x[kGroup];
      PYPARAM_UNROLL(16)
      for (int i = 0; i < kGroup; ++i) x[i] = read(stored_at<Stored>(v, i));
      take(x, kGroup);
    };
    if constexpr (kInFlight > 1) {
      PYPARAM_UNROLL(1)
      for (; g + (kInFlight - 1) * kThreads < whole; g += kInFlight * kThreads) {
        Vector16 v[kInFlight];
        PYPARAM_UNROLL(8)
        for (int u = 0; u < kInFlight; ++u) v[u] = load(g + u * kThreads);
        PYPARAM_UNROLL(8)
        for (int u = 0; u < kInFlight; ++u) take_vector(v[u]);
      }
    }
    PYPARAM_UNROLL(1)
    for (; g < whole; g += kThreads) take_vector(load(g));
  }
  PYPARAM_UNROLL(1)
  for (; g < groups; g += kThreads) {
    const int32_t first = g * kGroup;
    const int n = values.length - first < kGroup ? values.length - first : kGroup;
    Value x[kGroup];
    PYPARAM_UNROLL(16)
    for (int i = 0; i < kGroup; ++i) {
      // What is beyond the end repeats the last, and is not counted.
      x[i] = read(read_as<Stored>(values.at(first + (i < n ? i : n - 1))));
    }
    take(x, n);
  }
}

// The number of threads that each_group gives something to, at most kThreads.
template <int kThreads>
PYPARAM_DEVICE int threads_with_groups(const Values& values) {
  const int32_t in_group = static_cast<int32_t>(kVectorBytes) / values.bytes;
  const int32_t groups = (values.length + in_group - 1) / in_group;
  return groups < kThreads ? static_cast<int>(groups) : kThreads;
}

// Combines the slots of the first `count` threads as a binary tree, into slots[0], which every
// thread may read afterwards. The tree depends on `count` alone.
template <typename Block, typename T, int kSlots, typename Combine>
PYPARAM_DEVICE void combine_slots(const Block& block, Slots<T, kSlots>& slots, int count,
                                  const Combine& combine) {
  int half = 1;
  while (half < count) half *= 2;
  PYPARAM_UNROLL(1)
  for (half /= 2; half > 0; half /= 2) {
    block.each([&](int thread) {
      if (thread < half && thread + half < count)
        slots[thread] = combine(slots[thread], slots[thread + half]);
    });
  }
}

}  // namespace pyparam
