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

// Runs a body on `blocks` blocks, on the current stream of the device that `on` has made current.
// No blocks are no launch.
template <typename Body>
void launch(const OnDevice& on, int64_t blocks, const typename Body::Arguments& arguments) {
  if (blocks == 0) return;
  TORCH_CHECK(blocks > 0 && blocks <= std::numeric_limits<int32_t>::max(),
              "pyparam internal error, please report: a launch of ", blocks, " blocks");
  body_kernel<Body>
      <<<static_cast<unsigned int>(blocks), Body::kThreads, 0, on.stream()>>>(arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace pyparam::cuda
