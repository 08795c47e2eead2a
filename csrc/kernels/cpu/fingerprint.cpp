// pyparam::fingerprint on the CPU: 128 bits a tensor, over element type, shape and bytes.
#include "kernels/cpu/fingerprint.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/logical.h"
#include "kernels/cpu/pages.h"
#include "kernels/cpu/parallel.h"
#include "kernels/operands.h"
#include "table/ordinary.h"

namespace pyparam::cpu {
namespace {

// Bytes: a multiple of every element's size and of a word, so that chunks begin at a word.
constexpr int64_t kChunkBytes = 1 << 18;
constexpr int64_t kBytesAhead = 12;  // tensors whose first bytes are asked for

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
  return at::empty({static_cast<int64_t>(tensors.size()), 2},
                   at::TensorOptions().dtype(at::kLong).device(device));
}

void set_operand(HashOperands& read, size_t t, const at::Tensor& tensor) {
  const auto shape = tensor.sizes();
  read.sizes[t] = tensor.numel() * static_cast<int64_t>(tensor.itemsize());
  read.operands[t] = {
      tensor.is_contiguous() ? static_cast<const char*>(tensor.const_data_ptr()) : nullptr,
      hash::describe_tensor(static_cast<int>(tensor.scalar_type()), shape.data(),
                            static_cast<int64_t>(shape.size()))};
}

// The same of an ordinary tensor; false, and nothing done, for any other.
PYPARAM_INLINE bool set_ordinary_operand(HashOperands& read, size_t t, const at::Tensor& tensor) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (!is_ordinary_cpu(impl)) return false;
  if (!impl.is_contiguous()) {
    if (!has_extent(tensor)) return false;
    set_operand(read, t, tensor);
    return true;
  }
  const int64_t numel = impl.numel();
  const auto item = static_cast<uint64_t>(impl.itemsize());
  const char* bytes = numel == 0 ? nullptr : dense_memory(impl, numel, item);
  if (numel > 0 && bytes == nullptr) return false;
  const at::IntArrayRef sizes = impl.sizes();
  read.sizes[t] = numel * static_cast<int64_t>(item);
  read.operands[t] = {
      bytes, hash::describe_tensor(static_cast<int>(c10::typeMetaToScalarType(impl.dtype())),
                                   sizes.data(), static_cast<int64_t>(sizes.size()))};
  return true;
}

at::Tensor fingerprint_meta(at::TensorList tensors) { return empty_digests(tensors, at::kMeta); }

at::Tensor fingerprint_op(at::TensorList tensors) { return fingerprint(tensors, false); }

}  // namespace

std::optional<HashOperands> read_ordinary_operands(at::TensorList tensors) {
  HashOperands read;
  read.sizes.resize(tensors.size());
  read.operands.resize(tensors.size());
  std::atomic<bool> odd{false};
  at::parallel_for(0, static_cast<int64_t>(tensors.size()), 4096, [&](int64_t begin, int64_t end) {
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t) {
      prefetch_ahead(tensors, t);
      if (!set_ordinary_operand(read, t, tensors[t])) {
        odd = true;
        return;
      }
    }
  });
  if (odd) return std::nullopt;
  for (size_t t = 0; t < read.sizes.size(); ++t) {
    if (read.sizes[t] == 0) read.empty.push_back(t);
  }
  return read;
}

at::Tensor fingerprint(at::TensorList tensors, bool release_pages) {
  HashOperands read;
  read.sizes.resize(tensors.size());
  read.operands.resize(tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    prefetch_ahead(tensors, t);
    check_readable("fingerprint", "tensors", static_cast<int64_t>(t), tensors[t]);
    set_operand(read, t, tensors[t]);
  }
  return fingerprint(tensors, read, release_pages);
}

at::Tensor fingerprint(at::TensorList tensors, const HashOperands& read, bool release_pages) {
  const auto count = static_cast<int64_t>(tensors.size());
  const std::vector<HashOperands::Operand>& operands = read.operands;
  const ChunkPlan plan = plan_chunks(read.sizes, kChunkBytes, kChunkBytes);
  const PageReleaser pages(release_pages);
  std::vector<hash::Sums> partial(plan.chunks.size());
  for_each_chunk(plan, Pass::kReads, [&](const Chunk& chunk, int64_t index) {
    const HashOperands::Operand& operand = operands[chunk.tensor];
    if (const int64_t next = chunk.tensor + kBytesAhead; next < count) {
      const int64_t lines = std::min<int64_t>(read.sizes[next] / 64 + 1, 8);
      prefetch_bytes(operands[next].bytes, static_cast<int>(lines));
    }
    partial[index] = operand.bytes == nullptr
                         ? hash_reordered(tensors[chunk.tensor], chunk)
                         : hash_bytes(operand.bytes + chunk.begin, chunk.length,
                                      static_cast<uint64_t>(chunk.begin / 8));
    if (release_pages) pages.release_read(tensors[chunk.tensor], chunk.begin, chunk.length);
  });
  at::Tensor out = empty_digests(tensors, at::kCPU);
  auto* words = reinterpret_cast<uint64_t*>(out.mutable_data_ptr<int64_t>());
  for (int64_t t = 0; t < count; ++t) {
    hash::Sums sums;
    for (int64_t c = plan.first[t]; c < plan.first[t + 1]; ++c) sums.add(partial[c]);
    const hash::Digest digest = hash::tensor_digest(operands[t].description, sums);
    words[2 * t] = digest.low;
    words[2 * t + 1] = digest.high;
  }
  return out;
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
