// pyparam::fingerprint on the CPU: 128 bits a tensor, over element type, shape and bytes.
#include "kernels/cpu/fingerprint.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <memory>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/logical.h"
#include "kernels/cpu/pages.h"
#include "kernels/cpu/parallel.h"
#include "kernels/operands.h"

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

// What the pass over the bytes needs of a tensor, gathered in one place.
struct Operand {
  const char* bytes;  // null where the order in memory is not the logical one
  hash::Sums description;
};

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

at::Tensor fingerprint_meta(at::TensorList tensors) { return empty_digests(tensors, at::kMeta); }

at::Tensor fingerprint_op(at::TensorList tensors) { return fingerprint(tensors, false); }

}  // namespace

at::Tensor fingerprint(at::TensorList tensors, bool release_pages) {
  const auto count = static_cast<int64_t>(tensors.size());
  std::vector<int64_t> sizes(tensors.size());
  std::vector<Operand> operands(tensors.size());
  for (int64_t t = 0; t < count; ++t) {
    prefetch_ahead(tensors, static_cast<size_t>(t));
    const at::Tensor& tensor = tensors[t];
    check_readable("fingerprint", "tensors", t, tensor);
    const auto shape = tensor.sizes();
    sizes[t] = tensor.numel() * static_cast<int64_t>(tensor.itemsize());
    operands[t] = {
        tensor.is_contiguous() ? static_cast<const char*>(tensor.const_data_ptr()) : nullptr,
        hash::describe_tensor(static_cast<int>(tensor.scalar_type()), shape.data(),
                              static_cast<int64_t>(shape.size()))};
  }
  const ChunkPlan plan = plan_chunks(sizes, kChunkBytes, kChunkBytes);
  const PageReleaser pages(release_pages);
  std::vector<hash::Sums> partial(plan.chunks.size());
  for_each_chunk(plan, Pass::kReads, [&](const Chunk& chunk, int64_t index) {
    const Operand& operand = operands[chunk.tensor];
    if (chunk.tensor + kBytesAhead < count)
      prefetch_bytes(operands[chunk.tensor + kBytesAhead].bytes, 2);
    partial[index] = operand.bytes == nullptr
                         ? hash_reordered(tensors[chunk.tensor], chunk)
                         : hash_bytes(operand.bytes + chunk.begin, chunk.length,
                                      static_cast<uint64_t>(chunk.begin / 8));
    pages.release_read(tensors[chunk.tensor], chunk.begin, chunk.length);
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
