// Kernel bodies under a plain C++ compiler, for ctypes: no torch, no CUDA.
#pragma once

#include "kernels/block.h"

#define PYPARAM_TEST_EXPORT extern "C" __attribute__((visibility("default")))
