// The body of flatten and of scatter_: elements between many tensors and one vector. One block a
// chunk. Bytes move as vectors of 16; the four floating dtypes that models live in convert as
// vectors; every other pair, and tensors that are not dense, element by element.
#pragma once

#include "kernels/device_rows.h"
#include "kernels/element.h"
#include "kernels/vectors.h"

namespace pyparam::cuda {

constexpr int kTransferThreads = 256;

struct TransferArguments {
  TableView table;
  char* vector;
  Dtype vector_dtype;
  int32_t vector_size;  // bytes of its elements
  bool saturate;        // see write_number
};

// Vectors that a thread has under way at once.
constexpr int kInFlight = 4;

template <bool kShifted>
PYPARAM_DEVICE void copy_vectors(int thread, char* to, const VectorRun& run, int64_t count) {
  for (int64_t first = thread; first < count; first += kInFlight * kTransferThreads) {
    Vector16 v[kInFlight];
    PYPARAM_UNROLL(4)
    for (int k = 0; k < kInFlight; ++k) {
      const int64_t i = first + k * kTransferThreads;
      if (i < count) v[k] = run.load<kShifted>(i);
    }
    PYPARAM_UNROLL(4)
    for (int k = 0; k < kInFlight; ++k) {
      const int64_t i = first + k * kTransferThreads;
      if (i < count) store_vector(to + 16 * i, v[k]);
    }
  }
}

PYPARAM_DEVICE void copy_bytes(int thread, char* to, const char* from, int64_t bytes) {
  const int64_t lead = bytes_to_vector(to);
  const int64_t head = lead < bytes ? lead : bytes;
  const VectorRun run(from + head, bytes - head);
  if (run.shift == 0) {
    copy_vectors<false>(thread, to + head, run, run.whole);
  } else {
    copy_vectors<true>(thread, to + head, run, run.whole);
  }
  for (int64_t i = thread; i < head; i += kTransferThreads) to[i] = from[i];
  for (int64_t i = head + 16 * run.whole + thread; i < bytes; i += kTransferThreads)
    to[i] = from[i];
}

// As many elements as fill a vector of the smaller type: kReads vectors in, kWrites vectors out.
template <typename To, typename From>
struct Unit {
  static constexpr int kTo = static_cast<int>(sizeof(typename To::storage));
  static constexpr int kFrom = static_cast<int>(sizeof(typename From::storage));
  static constexpr int kElements = 16 / (kTo < kFrom ? kTo : kFrom);
  static constexpr int kReads = kElements * kFrom / 16;
  static constexpr int kWrites = kElements * kTo / 16;
};

template <typename To, typename From, bool kShifted>
PYPARAM_DEVICE void convert_units(int thread, char* to, const VectorRun& run, int64_t units) {
  using U = Unit<To, From>;
  for (int64_t unit = thread; unit < units; unit += kTransferThreads) {
    uint32_t in[4 * U::kReads], out[4 * U::kWrites];
    PYPARAM_UNROLL(4)
    for (int k = 0; k < U::kReads; ++k) {
      const Vector16 v = run.load<kShifted>(unit * U::kReads + k);
      PYPARAM_UNROLL(4)
      for (int w = 0; w < 4; ++w) in[4 * k + w] = v.word[w];
    }
    PYPARAM_UNROLL(8)
    for (int i = 0; i < U::kElements; ++i) {
      put_element<typename To::storage>(
          out, i, convert_stored<To, From>(element_of<typename From::storage>(in, i)));
    }
    PYPARAM_UNROLL(4)
    for (int k = 0; k < U::kWrites; ++k) {
      store_vector(to + 16 * (unit * U::kWrites + k),
                   {{out[4 * k], out[4 * k + 1], out[4 * k + 2], out[4 * k + 3]}});
    }
  }
}

// Both addresses are multiples of their element sizes.
template <typename To, typename From>
PYPARAM_DEVICE void convert_dense(int thread, char* to, const char* from, int64_t count) {
  using U = Unit<To, From>;
  const int64_t lead = bytes_to_vector(to) / U::kTo;
  const int64_t head = lead < count ? lead : count;
  const VectorRun run(from + head * U::kFrom, (count - head) * U::kFrom);
  const int64_t units = run.whole / U::kReads;
  if (run.shift == 0) {
    convert_units<To, From, false>(thread, to + head * U::kTo, run, units);
  } else {
    convert_units<To, From, true>(thread, to + head * U::kTo, run, units);
  }
  using In = typename From::storage;
  using Out = typename To::storage;
  const int64_t done = head + units * U::kElements;
  for (int64_t i = thread; i < head + count - done; i += kTransferThreads) {
    const int64_t at = i < head ? i : done + i - head;
    reinterpret_cast<Out*>(to)[at] =
        convert_stored<To, From>(reinterpret_cast<const In*>(from)[at]);
  }
}

// Whether the pair has a vector loop, and then runs it.
template <typename From>
PYPARAM_DEVICE bool convert_from(int thread, Dtype vector, char* to, const char* from,
                                 int64_t count) {
  switch (vector) {
    case Dtype::kFloat:
      convert_dense<Float32, From>(thread, to, from, count);
      return true;
    case Dtype::kDouble:
      convert_dense<Float64, From>(thread, to, from, count);
      return true;
    case Dtype::kHalf:
      convert_dense<Half, From>(thread, to, from, count);
      return true;
    case Dtype::kBFloat16:
      convert_dense<BFloat16, From>(thread, to, from, count);
      return true;
    default:
      return false;
  }
}
PYPARAM_DEVICE bool convert_floats(int thread, Dtype to_dtype, Dtype from_dtype, char* to,
                                   const char* from, int64_t count) {
  switch (from_dtype) {
    case Dtype::kFloat:
      return convert_from<Float32>(thread, to_dtype, to, from, count);
    case Dtype::kDouble:
      return convert_from<Float64>(thread, to_dtype, to, from, count);
    case Dtype::kHalf:
      return convert_from<Half>(thread, to_dtype, to, from, count);
    case Dtype::kBFloat16:
      return convert_from<BFloat16>(thread, to_dtype, to, from, count);
    default:
      return false;
  }
}

PYPARAM_DEVICE void copy_element(char* to, const char* from, int64_t size) {
  switch (size) {
    case 1:
      return write_as<uint8_t>(to, read_as<uint8_t>(from));
    case 2:
      return write_as<uint16_t>(to, read_as<uint16_t>(from));
    case 4:
      return write_as<uint32_t>(to, read_as<uint32_t>(from));
    case 8:
      return write_as<uint64_t>(to, read_as<uint64_t>(from));
    default:
      for (int64_t i = 0; i < size; i += 8) write_as<uint64_t>(to + i, read_as<uint64_t>(from + i));
  }
}

template <bool kToVector>
struct Transfer {
  static constexpr int kThreads = kTransferThreads;
  using Arguments = TransferArguments;
  using Shared = NoShared;

  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared&) {
    const ChunkRow chunk = a.table.chunks[block.index()];
    const TensorRow row = a.table.tensors[chunk.tensor];
    const auto dtype = static_cast<Dtype>(row.dtype);
    const bool same = dtype == a.vector_dtype;
    // Dtypes that element_bytes does not know convert to none, and only ever meet their own.
    const int64_t size = same ? a.vector_size : element_bytes(dtype);
    char* const tensor = reinterpret_cast<char*>(row.data);
    char* const vector = a.vector + (row.position + chunk.begin) * a.vector_size;
    block.last([&](int thread) {
      if (row.extents == 0) {
        char* const dense = tensor + chunk.begin * size;
        char* const to = kToVector ? vector : dense;
        const char* const from = kToVector ? dense : vector;
        if (same) return copy_bytes(thread, to, from, chunk.length * size);
        const auto misplaced = reinterpret_cast<uintptr_t>(dense) % size +
                               reinterpret_cast<uintptr_t>(vector) % a.vector_size;
        if (kToVector && misplaced == 0 &&
            convert_floats(thread, a.vector_dtype, dtype, to, from, chunk.length)) {
          return;
        }
      }
      const ExtentRow* const extents = a.table.extents + row.first_extent;
      for (int64_t i = thread; i < chunk.length; i += kThreads) {
        char* const place = tensor + place_of(extents, row.extents, chunk.begin + i) * size;
        char* const in_vector = vector + i * a.vector_size;
        char* const to = kToVector ? in_vector : place;
        const char* const from = kToVector ? place : in_vector;
        if (same) {
          copy_element(to, from, size);
        } else {
          write_number(kToVector ? a.vector_dtype : dtype, to,
                       read_number(kToVector ? dtype : a.vector_dtype, from), a.saturate);
        }
      }
    });
  }
};

using Flatten = Transfer<true>;
using Scatter = Transfer<false>;

}  // namespace pyparam::cuda
