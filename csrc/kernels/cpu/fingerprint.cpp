// pyparam::fingerprint on the CPU: 128 bits a tensor, over element type, shape and bytes.
#include "kernels/cpu/fingerprint.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/hash_few.h"
#include "kernels/cpu/logical.h"
#include "kernels/cpu/pages.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kept.h"
#include "kernels/operands.h"
#include "table/ordinary.h"

namespace pyparam::cpu {
namespace {

// Bytes: a multiple of every element's size and of a word, so that chunks begin at a word.
constexpr int64_t kChunkBytes = 1 << 18;
constexpr int64_t kBytesAhead = 12;  // tensors whose first bytes are asked for
constexpr int64_t kFewBytes = 1024;  // tensors of no more are hashed where the list is read

// Room for a chunk that has to be put in order first, kept by each thread.
char* scratch() {
  static thread_local std::unique_ptr<char[]> buffer;
  if (buffer == nullptr) buffer.reset(new char[kChunkBytes]);
  return buffer.get();
}

hash::Sums hash_reordered(const at::Tensor& tensor, const Chunk& chunk) {
  const LogicalView view(tensor);
  const int64_t size = view.itemsize();
  const char* bytes = view.read(chunk.begin / size, chunk.length / size, scratch());
  return hash_bytes(bytes, chunk.length, static_cast<uint64_t>(chunk.begin / 8));
}

at::Tensor empty_digests(at::TensorList tensors, c10::DeviceType device) {
  const int64_t sizes[] = {static_cast<int64_t>(tensors.size()), 2};
  if (device != at::kCPU) return at::empty(sizes, at::TensorOptions(device).dtype(at::kLong));
  return at::detail::empty_generic(
      sizes, kept_allocator(), c10::DispatchKeySet(c10::DispatchKey::CPU), at::kLong, std::nullopt);
}

hash::Digest* digests_in(const at::Tensor& digests) {
  return reinterpret_cast<hash::Digest*>(digests.mutable_data_ptr<int64_t>());
}

// Layouts that were described before: a model has tens of thousands of tensors and a dozen layouts.
class Descriptions {
 public:
  PYPARAM_INLINE const hash::Sums& of(at::ScalarType dtype, at::IntArrayRef sizes) {
    if (sizes.size() > kSizes) {
      larger_ = hash::describe_tensor(static_cast<int>(dtype), sizes.data(), dims_of(sizes));
      return larger_;
    }
    const int64_t first = sizes.empty() ? 0 : sizes[0];
    const int64_t second = sizes.size() < kSizes ? 0 : sizes[1];
    const auto kind = static_cast<uint32_t>(sizes.size() << 8) | static_cast<uint8_t>(dtype);
    const auto mixed = static_cast<uint64_t>(first * 31 + second) * 0x9e3779b97f4a7c15u + kind;
    Known& known = known_[(mixed ^ mixed >> 32) % kKnown];
    if (known.kind != kind || known.first != first || known.second != second) {
      known = {hash::describe_tensor(static_cast<int>(dtype), sizes.data(), dims_of(sizes)), first,
               second, kind};
    }
    return known.description;
  }

 private:
  static constexpr size_t kSizes = 2;
  static constexpr size_t kKnown = 64;
  struct Known {
    hash::Sums description;
    int64_t first = 0;
    int64_t second = 0;
    uint32_t kind = ~uint32_t{0};  // that no layout is of
  };
  static int64_t dims_of(at::IntArrayRef sizes) { return static_cast<int64_t>(sizes.size()); }

  std::array<Known, kKnown> known_;
  hash::Sums larger_;
};

void set_operand(HashOperands& read, size_t t, const at::Tensor& tensor, Descriptions& known) {
  read.sizes.push_back(tensor.numel() * static_cast<int64_t>(tensor.itemsize()));
  read.operands.push_back(
      {t, tensor.is_contiguous() ? static_cast<const char*>(tensor.const_data_ptr()) : nullptr,
       known.of(tensor.scalar_type(), tensor.sizes())});
}

// Reads a block of a list of ordinary tensors. Those of few bytes are hashed some tensors later,
// when their bytes have come.
class BlockReader {
 public:
  BlockReader(HashOperands& rest, hash::Digest* digests, bool hashes)
      : rest_(rest), digests_(digests), most_(hashes ? kFewBytes : 0) {}

  // False, and nothing done, for a tensor that is not ordinary.
  PYPARAM_INLINE bool take(size_t t, const at::Tensor& tensor) {
    const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
    if (!is_ordinary_cpu(impl)) return false;
    if (!impl.is_contiguous()) {
      if (!has_extent(tensor)) return false;
      set_operand(rest_, t, tensor, known_);
      return true;
    }
    const int64_t numel = impl.numel();
    const auto item = static_cast<uint64_t>(impl.itemsize());
    const char* bytes = numel == 0 ? nullptr : dense_memory(impl, numel, item);
    if (numel > 0 && bytes == nullptr) return false;
    const int64_t size = numel * static_cast<int64_t>(item);
    const hash::Sums& description =
        known_.of(c10::typeMetaToScalarType(impl.dtype()), impl.sizes());
    if (size == 0 || size > most_) {
      if (size == 0) rest_.empty.push_back(t);
      rest_.sizes.push_back(size);
      rest_.operands.push_back({t, bytes, description});
      return true;
    }
    for (int64_t at = 0; at < size; at += 64) __builtin_prefetch(bytes + at);
    Batch& batch = batches_[filling_];
    batch.few.bytes[batch.count] = bytes;
    batch.few.sizes[batch.count] = size;
    batch.few.descriptions[batch.count] = description;
    batch.tensors[batch.count] = t;
    ++batch.count;
    // As many of the oldest, whose bytes have come.
    if (batch.count % kPiece == 0) sum(batches_[(filling_ + 1) % kBatches], batch.count);
    if (batch.count == FewBytes::kTensors) {
      filling_ = (filling_ + 1) % kBatches;
      finish(batches_[filling_]);
    }
    return true;
  }
  void finish() {
    for (Batch& batch : batches_) {
      sum(batch, batch.count);
      finish(batch);
    }
  }

 private:
  static constexpr int kBatches = 2;
  static constexpr int kPiece = 2;
  static_assert(FewBytes::kTensors % kPiece == 0);
  struct Batch {
    FewBytes few = {};
    size_t tensors[FewBytes::kTensors];
    int count = 0;
    int summed = 0;  // of those
  };

  // Those before `end`.
  PYPARAM_INLINE void sum(Batch& batch, int end) {
    end = std::min(end, batch.count);
    if (batch.summed >= end) return;
    kernels_.sum_bytes(batch.few, batch.summed, end);
    batch.summed = end;
  }
  // Of tensors of which all are summed.
  void finish(Batch& batch) {
    hash::Digest found[FewBytes::kTensors];
    kernels_.digest_few(batch.few, batch.count, found);
    for (int i = 0; i < batch.count; ++i) digests_[batch.tensors[i]] = found[i];
    batch.count = batch.summed = 0;
  }

  const HashKernels& kernels_ = hash_kernels();
  HashOperands& rest_;
  hash::Digest* digests_;
  int64_t most_;
  Descriptions known_;
  Batch batches_[kBatches];
  int filling_ = 0;
};

at::Tensor fingerprint_meta(at::TensorList tensors) { return empty_digests(tensors, at::kMeta); }

at::Tensor fingerprint_op(at::TensorList tensors) { return fingerprint(tensors, false); }

}  // namespace

std::optional<HashOperands> read_ordinary_operands(at::TensorList tensors, bool release_pages) {
  constexpr int64_t kBlock = 4096;
  const auto count = static_cast<int64_t>(tensors.size());
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  HashOperands read;
  read.digests = empty_digests(tensors, at::kCPU);
  std::vector<HashOperands> rests(static_cast<size_t>(blocks));
  std::atomic<bool> odd{false};
  for_each_task_by_worker(blocks, Pass::kReads, [&](int64_t) {
    return [&](int64_t block) {
      if (odd) return;
      BlockReader reader(rests[static_cast<size_t>(block)], digests_in(read.digests),
                         !release_pages);
      const auto end = static_cast<size_t>(std::min((block + 1) * kBlock, count));
      for (auto t = static_cast<size_t>(block * kBlock); t < end; ++t) {
        prefetch_ahead(tensors, t);
        if (!reader.take(t, tensors[t])) {
          odd = true;
          return;
        }
      }
      reader.finish();
    };
  });
  if (odd) return std::nullopt;
  const auto append = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const HashOperands& rest : rests) {
    append(read.operands, rest.operands);
    append(read.sizes, rest.sizes);
    append(read.empty, rest.empty);
  }
  return read;
}

at::Tensor fingerprint(at::TensorList tensors, bool release_pages) {
  HashOperands read;
  read.digests = empty_digests(tensors, at::kCPU);
  Descriptions known;
  for (size_t t = 0; t < tensors.size(); ++t) {
    prefetch_ahead(tensors, t);
    check_readable("fingerprint", "tensors", static_cast<int64_t>(t), tensors[t]);
    set_operand(read, t, tensors[t], known);
  }
  return fingerprint(tensors, read, release_pages);
}

at::Tensor fingerprint(at::TensorList tensors, const HashOperands& read, bool release_pages) {
  const std::vector<HashOperands::Operand>& operands = read.operands;
  const auto count = static_cast<int64_t>(operands.size());
  const ChunkPlan plan = plan_chunks(read.sizes, kChunkBytes, kChunkBytes);
  const PageReleaser pages(release_pages);
  std::vector<hash::Sums> partial(plan.chunks.size());
  for_each_chunk(plan, Pass::kReads, [&](const Chunk& chunk, int64_t index) {
    const HashOperands::Operand& operand = operands[chunk.tensor];
    const at::Tensor& tensor = tensors[operand.tensor];
    if (const int64_t next = chunk.tensor + kBytesAhead; next < count) {
      const int64_t lines = std::min<int64_t>(read.sizes[next] / 64 + 1, 8);
      prefetch_bytes(operands[next].bytes, static_cast<int>(lines));
    }
    partial[index] = operand.bytes == nullptr
                         ? hash_reordered(tensor, chunk)
                         : hash_bytes(operand.bytes + chunk.begin, chunk.length,
                                      static_cast<uint64_t>(chunk.begin / 8));
    if (release_pages) pages.release_read(tensor, chunk.begin, chunk.length);
  });
  hash::Digest* digests = digests_in(read.digests);
  for (int64_t k = 0; k < count; ++k) {
    hash::Sums sums;
    for (int64_t c = plan.first[k]; c < plan.first[k + 1]; ++c) sums.add(partial[c]);
    digests[operands[k].tensor] = hash::tensor_digest(operands[k].description, sums);
  }
  return read.digests;
}

// On every backend without a kernel of its own, which it refuses in words.
TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) {
  m.impl("fingerprint", &fingerprint_op);
}
TORCH_LIBRARY_IMPL(pyparam, Meta, m) { m.impl("fingerprint", &fingerprint_meta); }
TORCH_LIBRARY_IMPL(pyparam, Autograd, m) {
  m.impl("fingerprint", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(pyparam, ADInplaceOrView, m) {
  m.impl("fingerprint", torch::CppFunction::makeFallthrough());
}

}  // namespace pyparam::cpu
