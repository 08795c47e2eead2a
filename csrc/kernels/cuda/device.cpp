#include "kernels/cuda/device.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include <algorithm>

namespace pyparam::cuda {

Upload::Upload(int64_t bytes) : bytes_(bytes) {
  if (bytes > 0) pinned_ = at::getHostAllocator(at::kCUDA)->allocate(static_cast<size_t>(bytes));
}

at::Tensor Upload::send(const OnDevice& on) {
  at::Tensor there = at::empty({bytes_}, at::TensorOptions(at::kByte).device(on.device()));
  if (bytes_ == 0) return there;
  C10_CUDA_CHECK(cudaMemcpyAsync(there.mutable_data_ptr(), pinned_.get(),
                                 static_cast<size_t>(bytes_), cudaMemcpyHostToDevice, on.stream()));
  at::getHostAllocator(at::kCUDA)->record_event(pinned_.get(), pinned_.get_context(),
                                                on.stream().unwrap());
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

int64_t chunk_elements_for(int64_t bytes, int64_t itemsize) {
  const int64_t chunk = bytes > (int64_t{1} << 32) ? int64_t{1} << 18 : int64_t{1} << 16;
  return std::max<int64_t>(chunk / itemsize, 1);
}

}  // namespace pyparam::cuda
