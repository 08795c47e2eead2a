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
  for (int i = thread; i < 256; i += kThreads) {
    const auto byte = static_cast<char>(i);
    table[i] = as_float(read_number(part, &byte));
  }
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
  return as_double(read_number(part, from));
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

// Calls take(values, n) for each group of this thread: an array of kGroup values, of which the
// first n count.
template <int kThreads, typename Reader, typename Take>
PYPARAM_DEVICE void each_group(const Reader& read, const Values& values, int thread,
                               const Take& take) {
  using Stored = typename Reader::storage;
  using Value = decltype(read(Stored()));
  constexpr int kGroup = kVectorBytes / static_cast<int>(sizeof(Stored));
  const auto groups = static_cast<int32_t>((values.length + kGroup - 1) / kGroup);
  int32_t g = thread;
  if (values.dense()) {
    const VectorRun run(values.at(0), static_cast<int64_t>(values.length) * values.bytes);
    g = each_vector<kThreads, InFlight<Reader>::kVectors>(
        run, thread, [&](const Vector16& v, int32_t) {
          Value x[kGroup];
          PYPARAM_UNROLL(16)
          for (int i = 0; i < kGroup; ++i) x[i] = read(element_of<Stored>(v.word, i));
          take(x, kGroup);
        });
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

}  // namespace pyparam
