// The one place where kernels are launched.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/util/Exception.h>

#include <limits>
#include <type_traits>

#include "kernels/block.h"
#include "kernels/cuda/device.h"

namespace pyparam::cuda {

// Blocks of a body that a multiprocessor should hold at once, Body::kBlocks, which bounds a
// thread's registers. 0, where a body says nothing, leaves the choice to the compiler.
template <typename Body, typename = void>
constexpr int kBlocksOf = 0;
template <typename Body>
constexpr int kBlocksOf<Body, std::void_t<decltype(Body::kBlocks)>> = Body::kBlocks;

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, kBlocksOf<Body>)
    body_kernel(const __grid_constant__ typename Body::Arguments arguments) {
  __shared__ typename Body::Shared shared;
  Body::run(DeviceBlock<Body::kThreads>{}, arguments, shared);
}

// Runs a body on `blocks` blocks, on the current stream of the device that `on` has made current.
// No blocks are no launch.
template <typename Body>
void launch(const OnDevice& on, int64_t blocks, const typename Body::Arguments& arguments) {
  if (blocks == 0) return;
  TORCH_CHECK(blocks > 0 && blocks <= std::numeric_limits<int32_t>::max(),
              "pyparam internal error, please report: a launch of ", blocks, " blocks");
  const auto grid = static_cast<unsigned int>(blocks);
  body_kernel<Body><<<grid, Body::kThreads, 0, on.stream()>>>(arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The launches of a verb, as its header states them: launch(Body{}, blocks, arguments).
struct Launch {
  const OnDevice& on;

  template <typename Body>
  void operator()(Body, int64_t blocks, const typename Body::Arguments& arguments) const {
    launch<Body>(on, blocks, arguments);
  }
};

}  // namespace pyparam::cuda
