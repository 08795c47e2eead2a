// fingerprint on a device: a block a chunk adds to its tensor's sums, then a thread a tensor makes
// its digest. Integers, so the order of adding does not matter. No torch header.
#pragma once

#include "kernels/cuda/values.h"
#include "kernels/hash.h"

namespace pyparam {

// Elements; a multiple of a word's bytes, so that chunks of every type begin at a word.
constexpr int64_t kHashChunk = int64_t{1} << 16;

// A tensor's elements as 64-bit words of their bytes in row-major order.
struct Words {
  const char* data;
  const ExtentRow* extents;
  int64_t bytes;  // of the tensor
  int32_t item;   // bytes of an element
  int32_t dims;

  // Word `index` where memory order is not logical order; the last one may be partial.
  PYPARAM_DEVICE uint64_t gather(int64_t index) const {
    const int64_t begin = index * 8;
    if (item == 16) {
      return read_as<uint64_t>(data + place_of(extents, dims, index / 2) * 16 + index % 2 * 8);
    }
    const int64_t end = begin + 8 < bytes ? begin + 8 : bytes;
    uint64_t word = 0;
    PYPARAM_UNROLL(1)
    for (int64_t at = begin; at < end; at += item) {
      const char* from = data + place_of(extents, dims, at / item) * item;
      uint64_t part = 0;
      switch (item) {
        case 1:
          part = read_as<uint8_t>(from);
          break;
        case 2:
          part = read_as<uint16_t>(from);
          break;
        case 4:
          part = read_as<uint32_t>(from);
          break;
        default:
          part = read_as<uint64_t>(from);
      }
      word |= part << (8 * (at - begin));
    }
    return word;
  }
  // The last word of a tensor in row-major order, byte by byte.
  PYPARAM_DEVICE uint64_t partial(int64_t index) const {
    const int64_t end = index * 8 + 8 < bytes ? index * 8 + 8 : bytes;
    uint64_t word = 0;
    PYPARAM_UNROLL(1)
    for (int64_t at = index * 8; at < end; ++at)
      word |= static_cast<uint64_t>(read_as<uint8_t>(data + at)) << (8 * (at - index * 8));
    return word;
  }
};

template <int kThreadCount>
struct HashChunk {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kBlocks = 3;
  struct Arguments {
    TableView table;
    hash::Sums* sums;  // one a tensor, from zero
  };
  struct Shared {
    Slots<hash::Sums, kThreads> sums;
  };
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
    const ChunkRow chunk = a.table.chunks[block.index()];
    const TensorRow row = a.table.tensors[chunk.tensor];
    Words words;
    words.item = row.item;
    words.data = reinterpret_cast<const char*>(row.data);
    words.extents = a.table.extents + row.first_extent;
    words.bytes = row.numel * words.item;
    words.dims = row.extents;
    const int64_t begin = chunk.begin * words.item;  // bytes
    const int64_t bytes = static_cast<int64_t>(chunk.length) * words.item;
    const auto first = static_cast<uint64_t>(begin / 8);
    const auto count = static_cast<int32_t>((bytes + 7) / 8);
    block.each([&](int thread) {
      hash::Sums sums;
      int32_t done = 0;
      if (words.dims == 0) {
        const VectorRun run(words.data + begin, bytes);
        each_vector<kThreads, 4>(run, thread, [&](const Vector16& v, int32_t index) {
          sums.add_word(element_of<uint64_t>(v.word, 0), first + 2 * static_cast<uint64_t>(index));
          sums.add_word(element_of<uint64_t>(v.word, 1),
                        first + 2 * static_cast<uint64_t>(index) + 1);
        });
        done = 2 * static_cast<int32_t>(run.whole);
      }
      PYPARAM_UNROLL(1)
      for (int32_t i = done + thread; i < count; i += kThreads) {
        const int64_t index = static_cast<int64_t>(first) + i;
        sums.add_word(words.dims == 0 ? words.partial(index) : words.gather(index),
                      static_cast<uint64_t>(index));
      }
      shared.sums[thread] = sums;
    });
    const int busy = count < kThreads ? static_cast<int>(count) : kThreads;
    block.combine(shared.sums, busy, [](hash::Sums x, const hash::Sums& y) {
      x.add(y);
      return x;
    });
    block.last([&](int thread) {
      if (thread > 0) return;
      hash::Sums& to = a.sums[chunk.tensor];
      block.add(to.plain, shared.sums[0].plain);
      block.add(to.placed, shared.sums[0].placed);
    });
  }
};

template <int kThreadCount>
struct HashRow {
  static constexpr int kThreads = kThreadCount;
  struct Arguments {
    int64_t tensors;
    const hash::Sums* descriptions;  // of element type and shape
    const hash::Sums* sums;
    hash::Digest* digests;
  };
  using Shared = NoShared;
  template <typename Block>
  static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared&) {
    block.last([&](int thread) {
      const int64_t t = block.index() * kThreads + thread;
      if (t < a.tensors) a.digests[t] = hash::tensor_digest(a.descriptions[t], a.sums[t]);
    });
  }
};

// The launches; `sums` has one a tensor, all zero.
template <int kThreads = 256, typename Launch>
void launch_fingerprint(const Launch& launch, const TableView& table,
                        const hash::Sums* descriptions, hash::Sums* sums, hash::Digest* digests) {
  launch(HashChunk<kThreads>{}, table.chunk_count, {table, sums});
  launch(HashRow<kThreads>{}, (table.tensor_count + kThreads - 1) / kThreads,
         {table.tensor_count, descriptions, sums, digests});
}

}  // namespace pyparam
