// The one place where kernels are launched.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/util/Exception.h>

#include <limits>
#include <type_traits>

#include "kernels/block.h"
#include "kernels/cuda/device.h"

namespace pyparam::cuda {

// Blocks that a multiprocessor must have room for at once: Body::kResident, which bounds a thread's
// registers. 0, the default, leaves the choice to the compiler.
template <typename Body, typename = void>
constexpr int kResidentOf = 0;
template <typename Body>
constexpr int kResidentOf<Body, std::void_t<decltype(Body::kResident)>> = Body::kResident;

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, kResidentOf<Body>)
    body_kernel(const __grid_constant__ typename Body::Arguments arguments) {
  __shared__ typename Body::Shared shared;
  Body::run(DeviceBlock<Body::kThreads>{}, arguments, shared);
}

// The same for a body that says how many of its blocks a multiprocessor should hold at once,
// kBlocks, and so how many registers a thread may have.
template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, Body::kBlocks)
    body_kernel_of_blocks(const __grid_constant__ typename Body::Arguments arguments) {
  __shared__ typename Body::Shared shared;
  Body::run(DeviceBlock<Body::kThreads>{}, arguments, shared);
}

template <typename Body, typename = void>
struct SaysBlocks : std::false_type {};
template <typename Body>
struct SaysBlocks<Body, std::void_t<decltype(Body::kBlocks)>> : std::true_type {};

// Runs a body on `blocks` blocks, on the current stream of the device that `on` has made current.
// No blocks are no launch.
template <typename Body>
void launch(const OnDevice& on, int64_t blocks, const typename Body::Arguments& arguments) {
  if (blocks == 0) return;
  TORCH_CHECK(blocks > 0 && blocks <= std::numeric_limits<int32_t>::max(),
              "pyparam internal error, please report: a launch of ", blocks, " blocks");
  const auto grid = static_cast<unsigned int>(blocks);
  if constexpr (SaysBlocks<Body>::value) {
    body_kernel_of_blocks<Body><<<grid, Body::kThreads, 0, on.stream()>>>(arguments);
  } else {
    body_kernel<Body><<<grid, Body::kThreads, 0, on.stream()>>>(arguments);
  }
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
