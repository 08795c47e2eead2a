#include "kernels/cuda/device.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "kernels/cuda/spare_blocks.h"

namespace pyparam::cuda {

namespace {

// The graph that the stream's work is being captured into, if any.
std::optional<cudaGraph_t> graph_under_capture(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  cudaGraph_t graph = nullptr;
#if CUDART_VERSION >= 13000
  C10_CUDA_CHECK(
      cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, nullptr, nullptr, nullptr));
#else
  C10_CUDA_CHECK(cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, &graph, nullptr, nullptr));
#endif
  if (status != cudaStreamCaptureStatusActive) return std::nullopt;
  return graph;
}

SpareBlocks& spare_blocks() noexcept {
  static SpareBlocks* const blocks = new SpareBlocks();  // outlives every graph
  return *blocks;
}

// Pinned memory that a graph reads.
GraphBlock* graph_block(int64_t bytes) {
  if (GraphBlock* const spare = spare_blocks().take(bytes)) return spare;
  auto block = std::make_unique<GraphBlock>();
  block->bytes = 4096;
  while (block->bytes < bytes) block->bytes *= 2;
  // Allowed during a capture only in this mode; it is no part of what is captured.
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  void* host = nullptr;
  C10_CUDA_CHECK(cudaHostAlloc(&host, static_cast<size_t>(block->bytes), cudaHostAllocDefault));
  block->host = static_cast<char*>(host);
  return block.release();
}

void CUDART_CB give_back(void* block) noexcept {
  spare_blocks().give_back(static_cast<GraphBlock*>(block));
}

}  // namespace

Upload::Upload(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  captured_ = graph_under_capture(c10::cuda::getCurrentCUDAStream()).has_value();
  if (captured_) {
    block_ = graph_block(bytes);
    host_ = block_->host;
  } else {
    pinned_ = at::getHostAllocator(at::kCUDA)->allocate(static_cast<size_t>(bytes));
    host_ = static_cast<char*>(pinned_.get());
  }
}

Upload::~Upload() {
  if (block_ != nullptr) spare_blocks().give_back(block_);  // never sent
}

at::Tensor Upload::send(const OnDevice& on) {
  at::Tensor there = room(on, bytes_);
  if (bytes_ == 0) return there;
  if (captured_) {
    // The graph owns the block from here on, whatever fails after.
    const std::optional<cudaGraph_t> graph = graph_under_capture(on.stream());
    TORCH_CHECK(graph.has_value(), "the capture of a CUDA graph ended in the middle of a call");
    cudaUserObject_t owner{};
    C10_CUDA_CHECK(
        cudaUserObjectCreate(&owner, block_, give_back, 1, cudaUserObjectNoDestructorSync));
    block_ = nullptr;
    const cudaError_t retained =
        cudaGraphRetainUserObject(*graph, owner, 1, cudaGraphUserObjectMove);
    if (retained != cudaSuccess) cudaUserObjectRelease(owner, 1);
    C10_CUDA_CHECK(retained);
    C10_CUDA_CHECK(cudaMemcpyAsync(there.mutable_data_ptr(), host_, static_cast<size_t>(bytes_),
                                   cudaMemcpyHostToDevice, on.stream()));
    return there;
  }
  C10_CUDA_CHECK(cudaMemcpyAsync(there.mutable_data_ptr(), host_, static_cast<size_t>(bytes_),
                                 cudaMemcpyHostToDevice, on.stream()));
  at::getHostAllocator(at::kCUDA)->record_event(host_, pinned_.get_context(), on.stream().unwrap());
  return there;
}

SentTable send_table(const OnDevice& on, DeviceTable& table) {
  ColumnLayout layout;
  table.add_to(layout);
  Upload upload(layout.bytes());
  table.write(upload.host());
  at::Tensor bytes = upload.send(on);
  const TableView view = table.view(static_cast<const char*>(bytes.const_data_ptr()));
  return {std::move(bytes), view};
}

at::Tensor room(const OnDevice& on, int64_t bytes) {
  return at::empty({bytes}, at::TensorOptions(at::kByte).device(on.device()));
}

int64_t chunk_elements_for(int64_t bytes, int64_t itemsize) {
  const int64_t chunk = bytes > (int64_t{1} << 32) ? int64_t{1} << 18 : int64_t{1} << 16;
  return std::max<int64_t>(chunk / itemsize, 1);
}

}  // namespace pyparam::cuda
