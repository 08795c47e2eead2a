#include "kernels/cuda/device.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

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

// Pinned memory that graphs read. A graph that ends calls back from a thread that may make no CUDA
// call, so blocks are never freed, only used again by later graphs.
class GraphBlocks {
 public:
  static GraphBlocks& all() {
    static auto* blocks = new GraphBlocks();  // outlives every graph
    return *blocks;
  }

  char* take(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto fitting = free_.lower_bound(bytes);
    if (fitting != free_.end()) {
      char* const block = fitting->second;
      free_.erase(fitting);
      return block;
    }
    int64_t size = 4096;
    while (size < bytes) size *= 2;
    // Allowed during a capture only in this mode; it is no part of what is captured.
    const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
    void* block = nullptr;
    C10_CUDA_CHECK(cudaHostAlloc(&block, static_cast<size_t>(size), cudaHostAllocDefault));
    sizes_[static_cast<char*>(block)] = size;
    return static_cast<char*>(block);
  }
  void give_back(char* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.emplace(sizes_.at(block), block);
  }

 private:
  std::mutex mutex_;
  std::multimap<int64_t, char*> free_;
  std::unordered_map<char*, int64_t> sizes_;
};

void CUDART_CB give_back(void* block) { GraphBlocks::all().give_back(static_cast<char*>(block)); }

}  // namespace

Upload::Upload(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  captured_ = graph_under_capture(c10::cuda::getCurrentCUDAStream()).has_value();
  if (captured_) {
    host_ = GraphBlocks::all().take(bytes);
  } else {
    pinned_ = at::getHostAllocator(at::kCUDA)->allocate(static_cast<size_t>(bytes));
    host_ = static_cast<char*>(pinned_.get());
  }
}

Upload::~Upload() {
  if (captured_ && host_ != nullptr) GraphBlocks::all().give_back(host_);  // never sent
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
        cudaUserObjectCreate(&owner, host_, give_back, 1, cudaUserObjectNoDestructorSync));
    char* const block = std::exchange(host_, nullptr);
    const cudaError_t retained =
        cudaGraphRetainUserObject(*graph, owner, 1, cudaGraphUserObjectMove);
    if (retained != cudaSuccess) cudaUserObjectRelease(owner, 1);
    C10_CUDA_CHECK(retained);
    C10_CUDA_CHECK(cudaMemcpyAsync(there.mutable_data_ptr(), block, static_cast<size_t>(bytes_),
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
