// Work on one device: its guard, its current stream, and rows copied to it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdint>

#include "kernels/device_table.h"

namespace pyparam::cuda {

// Makes a device current as long as it lives, and knows the stream to work on.
class OnDevice {
 public:
  explicit OnDevice(at::Device device)
      : guard_(device), stream_(c10::cuda::getCurrentCUDAStream(guard_.current_device().index())) {}

  at::Device device() const { return guard_.current_device(); }
  const c10::cuda::CUDAStream& stream() const { return stream_; }

 private:
  c10::cuda::CUDAGuard guard_;
  c10::cuda::CUDAStream stream_;
};

struct GraphBlock;

// Bytes written on the host and copied to the device by one asynchronous copy from pinned memory.
//
// The device side is a tensor of the caching allocator: dropping it after the launches that read it
// is safe on the stream they were launched on. The pinned side goes back to torch's pinned
// allocator, which waits for the copy; or, while a CUDA graph is captured, whose every replay reads
// it again, belongs to the graph and lasts as long.
class Upload {
 public:
  // For the device and stream that are current: make the OnDevice first.
  explicit Upload(int64_t bytes);
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload();

  char* host() { return host_; }
  // Starts the copy, once. The tensor must live until the last launch that reads it.
  at::Tensor send(const OnDevice& on);

 private:
  int64_t bytes_;
  bool captured_ = false;
  c10::DataPtr pinned_;
  char* host_ = nullptr;
  GraphBlock* block_ = nullptr;  // what host_ points into, until a graph owns it
};

// Sends a table alone: for launches that need no columns of their own.
struct SentTable {
  at::Tensor bytes;  // keeps the rows alive
  TableView view;
};
SentTable send_table(const OnDevice& on, DeviceTable& table);

// Bytes on the device, for what kernels hand to each other.
at::Tensor room(const OnDevice& on, int64_t bytes);

// Elements a chunk has so that a block has enough to do and the device enough blocks. For verbs
// whose results do not depend on where chunks end.
int64_t chunk_elements_for(int64_t bytes, int64_t itemsize);

}  // namespace pyparam::cuda
